"""motet: reinforcement-learning post-training of models that both read and draw.

    policy = motet.load_policy("checkpoints/shapes_janus")
    acts = policy.generate_images("two red circles", n=4)

Names are loaded when they are first used: importing motet imports no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.policies import load_policy as load_policy

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy"]


def __getattr__(name: str) -> Any:
    if name == "load_policy":
        from motet.policies import load_policy

        return load_policy
    raise AttributeError(f"module 'motet' has no attribute {name!r}")
