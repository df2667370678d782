"""Drawing by denoising: what every policy with a flow or diffusion expert shares."""

from motet.policies.flow.branches import Branches, branches_of
from motet.policies.flow.sampling import paint
from motet.policies.flow.scoring import demonstrated, rescore

__all__ = ["Branches", "branches_of", "demonstrated", "paint", "rescore"]
