"""motet: reinforcement-learning post-training of models that understand and generate images.

    policy = motet.load_policy("checkpoints/shapes_janus")
    acts = policy.generate_images("two red circles", n=4)

Names are loaded when they are first used: importing motet imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.core.registry import register as register
    from motet.policies import load_policy as load_policy

__version__ = "0.1.0"
_MODULES = {"load_policy": "motet.policies", "register": "motet.core.registry"}
__all__ = ["__version__", "load_policy", "register"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'motet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
