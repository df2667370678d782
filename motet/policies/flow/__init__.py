"""Drawing by denoising: what every policy with a flow or diffusion expert shares."""

from motet.policies.flow.branches import Branches, branches_of
from motet.policies.flow.painter import Conditioner, Painter
from motet.policies.flow.sampling import paint
from motet.policies.flow.scoring import demonstrated, renoised, rescore

__all__ = ["Branches", "Conditioner", "Painter", "branches_of", "demonstrated", "paint", "renoised", "rescore"]
