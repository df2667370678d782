"""motet: reinforcement-learning post-training of models that understand and generate images.

    result = motet.train("checkpoints/shapes_janus", scenario="answer", data=rows, rewards=my_reward, steps=20,
                         output="runs/mine")
    acts = result.policy.generate_images("two red circles", n=4)

Names are loaded when they are first used: importing motet imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.api.loop import Optimizer as Optimizer
    from motet.api.loop import advantages as advantages
    from motet.api.loop import rollout as rollout
    from motet.api.loop import score as score
    from motet.api.loop import update as update
    from motet.api.runs import evaluate as evaluate
    from motet.api.runs import sft as sft
    from motet.api.runs import train as train
    from motet.config import Recipe as Recipe
    from motet.core.conversation import Conversation as Conversation
    from motet.core.protocols import Policy as Policy
    from motet.core.registry import register as register
    from motet.core.task import Task as Task
    from motet.core.trajectory import ActWithAdvantage as ActWithAdvantage
    from motet.core.trajectory import DenoisingSteps as DenoisingSteps
    from motet.core.trajectory import ImageTokens as ImageTokens
    from motet.core.trajectory import TextTokens as TextTokens
    from motet.policies import load_policy as load_policy
    from motet.report.callbacks import Callback as Callback
    from motet.report.callbacks import StopTraining as StopTraining
    from motet.scenarios import GenerateImage as GenerateImage
    from motet.scenarios import GenerateText as GenerateText
    from motet.scenarios import scenario as scenario

__version__ = "0.1.0"
_NAMES = {
    "motet.api.loop": ("Optimizer", "advantages", "rollout", "score", "update"),
    "motet.api.runs": ("evaluate", "sft", "train"),
    "motet.config": ("Recipe",),
    "motet.core.conversation": ("Conversation",),
    "motet.core.protocols": ("Policy",),
    "motet.core.registry": ("register",),
    "motet.core.task": ("Task",),
    "motet.core.trajectory": ("ActWithAdvantage", "DenoisingSteps", "ImageTokens", "TextTokens"),
    "motet.policies": ("load_policy",),
    "motet.report.callbacks": ("Callback", "StopTraining"),
    "motet.scenarios": ("GenerateImage", "GenerateText", "scenario"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "ActWithAdvantage",
    "Callback",
    "Conversation",
    "DenoisingSteps",
    "GenerateImage",
    "GenerateText",
    "ImageTokens",
    "Optimizer",
    "Policy",
    "Recipe",
    "StopTraining",
    "Task",
    "TextTokens",
    "__version__",
    "advantages",
    "evaluate",
    "load_policy",
    "register",
    "rollout",
    "scenario",
    "score",
    "sft",
    "train",
    "update",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'motet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
