"""What the tests of reward models share: a reward bound to a policy, and one call of it."""

from motet.config import RewardConfig
from motet.rewards import bind_policy, resolve
from motet.testing import FakePolicy
from tests.rewards.judges import image, shows

PROMPTS = ["a red dog", "a blue bus on the man", "a red dog", "a cat " * 30]
IMAGES = [image("red"), image("blue", (30, 12)), image("green"), image("red")]


def bound(name, **options):
    """The reward of that name, with its models loaded."""
    config = RewardConfig(name=name, options=options)
    (reward,) = bind_policy([resolve(config, {"image": "image"}, ("prompt", "images", "instruction"))], FakePolicy())
    return reward


def score(reward, images=IMAGES, prompts=PROMPTS, **columns):
    """Its scores of generated images."""
    return reward(prompts=[], completions=shows(*images), prompt=list(prompts), **columns)
