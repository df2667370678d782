"""Options of losses and advantage estimators: which loss a kind has, and what is rejected before anything is loaded."""

import pytest

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.training.advantage_estimators import resolve_advantage
from motet.training.losses import LOSSES, resolve_loss, resolve_losses
from motet.training.losses.base import Loss
from tests.runs import motet_command

BASE = {"policy": {"path": "x"}, "run": {"steps": 1}, "rewards": [{"name": "format"}]}


def resolved(overrides, kinds=("text",)):
    recipe = parse_recipe(BASE, overrides)
    resolve_advantage(recipe.algorithm)
    return resolve_losses(recipe, kinds)


WRONG = [
    ("loss.epsilon_high=0.1", "algorithm.loss.epsilon_high: 0.1 is below epsilon 0.2"),
    ("loss={name: grpo, epsilon: null, epsilon_high: 0.3}", "is 0.3, but algorithm.loss.epsilon null means never"),
    ("loss={name: grpo, epsilon: null, delta: 4.0}", "algorithm.loss.delta: is 4, but algorithm.loss.epsilon null"),
    (
        "advantage={name: rejection, normalize_separately: true}",
        "algorithm.advantage.normalize_separately: has no effect: rejection sampling does not normalise",
    ),
    ("loss.epsilon=0", "algorithm.loss.epsilon: 0 clips every change away"),
    ("loss.epsilon=20", "algorithm.loss.epsilon: 20 is a ratio below 0; expected at most 1"),
    ("loss.delta=1.2", "algorithm.loss.delta: 1.2 lies inside the clip range, which ends at 1.2"),
    ("loss={name: dapo, kl_bias_correction: true, kl_estimator: k2}", "kl_bias_correction: weights the KL by the"),
    ("loss={name: sapo, epsilon: 0.1}", "algorithm.loss.epsilon: the key is unknown"),
    ("loss={name: vespo, importance_sampling_level: sequence}", "expected one of token"),
    ("loss={name: luspo, importance_sampling_level: token}", "expected one of sequence"),
    ("loss=cispo", "algorithm.loss.epsilon_high: missing; expected a number >= 1"),
    (
        "loss={name: cispo, epsilon_high: 0.28}",
        "algorithm.loss.epsilon_high: 0.28 does not fit; expected a number >= 1",
    ),
    ("loss=dr_grpo", "algorithm.scale_rewards: is group, but algorithm.loss dr_grpo"),
    ("loss=nft", "algorithm.loss: nft is a loss of denoising acts, and this one is for text acts"),
    ("loss=grpo_guard", "algorithm.loss: grpo_guard is a loss of denoising acts"),
    ("loss=nll", "algorithm.loss: nll does not use advantages"),
    ("loss=drgpo", "algorithm.loss='drgpo' is not a loss"),
    ("per_kind.text.loss={name: grpo, epsilon: 0}", "algorithm.per_kind.text.loss.epsilon: 0 clips every change away"),
    (
        "per_kind.text.loss={name: grpo, kl_estimator: gaussian}",
        "kl_estimator: is gaussian, but of text acts it must be",
    ),
    ("advantage=ppo", "algorithm.advantage='ppo' is not a"),
    ("advantage.clip=0", "algorithm.advantage.clip: 0 does not fit; expected a number > 0"),
    ("reference_sync={}", "algorithm.reference_sync: moves the reference, but no loss of this run has one"),
]


@pytest.mark.parametrize(("override", "words"), WRONG, ids=lambda value: value[:50])
def test_what_contradicts_itself_is_rejected_with_its_key(override, words):
    with pytest.raises(ConfigError) as caught:
        resolved([f"algorithm.{override}"])
    assert words in str(caught.value) and " Fix: " in str(caught.value)


def test_settings_of_two_sections_that_exclude_each_other():
    for override, words in {
        "algorithm.advantage.normalize_separately=true": "normalize_separately: divides every reward",
        "algorithm.advantage.population_std=true": "population_std: has no effect while",
    }.items():
        with pytest.raises(ConfigError, match=words):
            resolved([override, "algorithm.scale_rewards=none"])
    guard = ["algorithm.per_kind.denoising.loss=grpo_guard", "sampling.denoising.sde_type=cps"]
    with pytest.raises(
        ConfigError, match=r"algorithm\.per_kind\.denoising\.loss: grpo_guard weights the steps of flow_sde"
    ):
        resolved(guard, ["denoising"])


def test_each_kind_has_the_algorithms_loss_or_its_own():
    recipe = parse_recipe(
        BASE,
        [
            "algorithm.loss={name: dapo, epsilon_high: 0.28}",
            "algorithm.beta=0.1",
            "algorithm.per_kind.denoising={loss: nft, beta: 0.02, weight: 2.0}",
        ],
    )
    made = {kind: resolve_loss(recipe.algorithm, kind) for kind in ("text", "denoising")}
    assert type(made["text"]) is LOSSES.find("dapo") and made["text"].settings.epsilon_high == 0.28
    assert (made["text"].beta, made["text"].weight) == (0.1, 1.0)
    assert type(made["denoising"]) is LOSSES.find("nft") and made["denoising"].settings.beta == 1.0
    assert (made["denoising"].beta, made["denoising"].weight) == (0.02, 2.0)


def test_the_command_that_shows_a_recipe_checks_its_options(capsys, tmp_path):
    (tmp_path / "recipe.yaml").write_text("policy: {path: x}\nrun: {steps: 1}\nrewards: [{name: format}]\n")
    answer = motet_command(capsys, "config", tmp_path / "recipe.yaml", "algorithm.loss={name: sapo, epsilon: 0.1}")
    assert answer.code == 2 and "algorithm.loss.epsilon: the key is unknown" in answer.err
    keys = motet_command(capsys, "config", "--keys").out
    assert "algorithm.loss.temperature_neg  (sapo: a number > 0; default 1.05)" in keys.splitlines()
    assert "\\n" not in keys


def reinforce(batch):
    """A loss that is a plain function."""
    return -(batch.advantages * batch.log_probs).sum() / batch.counts.num_actions, {}


def test_a_path_to_a_class_or_a_function_is_a_loss():
    for name in ("reinforce", "Mine"):
        (loss,) = resolved([f"algorithm.loss={__file__}:{name}"]).values()
        assert isinstance(loss, Loss)


class Mine(Loss):
    def __call__(self, batch):
        return reinforce(batch)
