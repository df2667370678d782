"""Drawing by denoising: what every policy with a flow or diffusion expert shares."""

from motet.policies.diffusion.generator import Conditioner, Painter
from motet.policies.diffusion.guidance import Branches, branches_of
from motet.policies.diffusion.replay import demonstrated, renoised, rescore
from motet.policies.diffusion.sampling import paint

__all__ = ["Branches", "Conditioner", "Painter", "branches_of", "demonstrated", "paint", "renoised", "rescore"]
