"""Advantage assignment by hand arithmetic. Standard deviations are unbiased (n - 1) and 1e-4 is added to them."""

import math
from dataclasses import dataclass

import pytest
import torch

from motet.config import AlgorithmConfig
from motet.config.choice import Choice
from motet.core.errors import ConfigError
from motet.core.task import Task
from motet.core.trajectory import Failure, Sampling, Scores
from motet.scenarios import GenerateImage, GenerateText, answer, generate_and_answer, scenario
from motet.testing import FakePolicy
from motet.training.advantage_estimators import AdvantageSettings, GroupMean
from motet.training.advantages import assign_advantages, check_reward_assignment
from motet.training.rollout import rollout

SAMPLINGS = {"text": Sampling(), "image": Sampling()}


@dataclass(frozen=True)
class Reward:
    name: str
    weight: float = 1.0
    acts: tuple[str, ...] = ("image", "answer")


DRAW, ANSWER = Reward("see", 1.0, ("image",)), Reward("say", 0.8, ("answer",))


def assign(values, rewards, made=generate_and_answer, dropped=(), advantage="grpo", **algorithm):
    """`values[p]` maps reward names to the G values of group p; `dropped` are (p, g)."""
    G = len(next(iter(values[0].values())))
    tasks = [Task(n, {"prompt": "p", "question": "q"}) for n in range(len(values))]
    groups = rollout(FakePolicy(), made, tasks, G, samplings=SAMPLINGS, seed=0, step=0)
    lost = [{g: Failure("reward", "x") for q, g in dropped if q == p} for p in range(len(values))]
    scores = [Scores({n: tuple(v) for n, v in row.items()}, d) for row, d in zip(values, lost, strict=True)]
    options = {name: algorithm.pop(name) for name in list(algorithm) if name not in AlgorithmConfig.model_fields}
    choice = Choice.of(advantage, **options)
    config = AlgorithmConfig(num_generations=max(2, G), advantage=choice, **algorithm)
    return assign_advantages(groups, scores, rewards, config)


def of(given, name):
    """The advantages of the acts of a name, in order."""
    return [one.advantage for one in given.acts if one.act.name == name]


def near(*values):
    return pytest.approx(list(values), abs=1e-9)


# Group of three. see = 0, 1, 2: mean 1, std 1.   say = 1, 0, 0: mean 1/3, std sqrt((4/9 + 1/9 + 1/9) / 2) = sqrt(1/3).
SEE, SAY = (0.0, 1.0, 2.0), (1.0, 0.0, 0.0)
A_SEE = [-1 / 1.0001, 0.0, 1 / 1.0001]
A_SAY = [x / (math.sqrt(1 / 3) + 1e-4) for x in (2 / 3, -1 / 3, -1 / 3)]
A_08 = [0.8 * x / (0.8 * math.sqrt(1 / 3) + 1e-4) for x in (2 / 3, -1 / 3, -1 / 3)]  # a pool of 0.8 say alone
VALUES = [{"see": SEE, "say": SAY}]


def test_flow_grpos_deviation_and_bound():
    """The population's deviation of see = 0, 1, 2 is sqrt(2/3); the bound is one of the act's whole advantage."""
    wide = 1 / (math.sqrt(2 / 3) + 1e-4)
    given = assign(VALUES, [DRAW], advantage_assignment="joint", population_std=True)
    assert of(given, "image") == near(-wide, 0.0, wide)
    given = assign(VALUES, [DRAW], advantage_assignment="joint", population_std=True, clip=1.1)
    assert of(given, "image") == near(-1.1, 0.0, 1.1)
    each = assign(
        VALUES,
        [DRAW],
        advantage_assignment="joint",
        population_std=True,
        normalize_separately=True,
        scale_rewards="group",
    )
    assert of(each, "image") != of(
        assign(VALUES, [DRAW], advantage_assignment="joint", normalize_separately=True), "image"
    )
    summed = assign(VALUES, [DRAW, ANSWER], advantage_assignment="summed", clip=0.3)
    assert of(summed, "answer") == near(*(max(-0.3, min(0.3, s + 0.8 * t)) for s, t in zip(A_SEE, A_SAY, strict=True)))


def test_joint():
    """1.0 see + 0.8 say = 0.8, 1, 2: mean 3.8/3; every act gets the same."""
    given = assign(VALUES, [DRAW, ANSWER], advantage_assignment="joint")
    mean = 3.8 / 3
    std = math.sqrt(((0.8 - mean) ** 2 + (1 - mean) ** 2 + (2 - mean) ** 2) / 2)
    assert of(given, "image") == of(given, "answer") == near(*((x - mean) / (std + 1e-4) for x in (0.8, 1, 2)))


def test_summed():
    """A_see + 0.8 A_say for every act (CoRL)."""
    given = assign(VALUES, [DRAW, ANSWER], advantage_assignment="summed")
    assert of(given, "image") == of(given, "answer") == near(*(a + 0.8 * b for a, b in zip(A_SEE, A_SAY, strict=True)))


def test_factorized():
    given = assign(VALUES, [DRAW, ANSWER], advantage_assignment="factorized")
    assert of(given, "image") == near(*A_SEE) and of(given, "answer") == near(*A_08)


def test_a_pool_is_summed_by_weight_before_it_is_normalised():
    """0.8 say + 0.4 form, form = 0, 1, 0: as 1 say + 0.5 form = 1, 0.5, 0 of weight 0.8: mean 0.5, std 0.5."""
    rewards = [DRAW, ANSWER, Reward("form", 0.4, ("answer",))]
    values = [{"see": SEE, "say": SAY, "form": (0.0, 1.0, 0.0)}]
    pool = [0.5 / 0.5001, 0.0, -0.5 / 0.5001]
    given = assign(values, rewards, advantage_assignment="summed")
    assert of(given, "answer") == near(*(a + 0.8 * b for a, b in zip(A_SEE, pool, strict=True)))
    # factorized has no weights but those of the sum: 0.8, 0.4, 0: std 0.4
    assert of(assign(values, rewards, advantage_assignment="factorized"), "answer") == near(
        0.4 / 0.4001, 0.0, -0.4 / 0.4001
    )


def test_an_act_gets_every_pool_that_names_it():
    """`both` = 2, 0, 1: mean 1, std 1."""
    rewards = [DRAW, ANSWER, Reward("both")]
    given = assign([{"see": SEE, "say": SAY, "both": (2.0, 0.0, 1.0)}], rewards, advantage_assignment="factorized")
    both = [1 / 1.0001, -1 / 1.0001, 0.0]
    assert of(given, "image") == near(*(a + b for a, b in zip(A_SEE, both, strict=True)))
    assert of(given, "answer") == near(*(a + b for a, b in zip(A_08, both, strict=True)))


def test_pools_do_not_depend_on_the_order_of_acts():
    rewards = [Reward("see", 1.0, ("image", "answer")), Reward("say", 1.0, ("answer", "image"))]
    given = assign(VALUES, rewards, advantage_assignment="factorized")  # one pool: 1, 1, 2
    assert of(given, "image") == near(*(x / (math.sqrt(1 / 3) + 1e-4) for x in (-1 / 3, -1 / 3, 2 / 3)))


def test_without_scaling_a_pool_comes_to_its_plain_weighted_sum():
    given = assign(VALUES, [DRAW, ANSWER], advantage_assignment="summed", scale_rewards="none")
    assert of(given, "answer") == near(-1 + 0.8 * 2 / 3, 0 - 0.8 / 3, 1 - 0.8 / 3)


def test_negative_weights_punish():
    given = assign([{"say": SAY}], [Reward("say", -0.5, ("answer",))], made=answer, advantage_assignment="summed")
    assert of(given, "answer") == near(*(-0.5 * a for a in A_SAY))


def test_rloo():
    """Against the mean of the others: 0 - 1.5, 1 - 1, 2 - 0.5."""
    given = assign(
        [{"say": SEE}], [ANSWER], made=answer, advantage="rloo", scale_rewards="none", advantage_assignment="summed"
    )
    assert of(given, "answer") == near(*(0.8 * x for x in (-1.5, 0.0, 1.5)))


def test_rejection_sampling_keeps_what_reaches_the_threshold():
    """No baseline: the second group, of which all are kept, trains too; a failed generation never does."""
    values = [{"say": (0.0, 1.0, math.nan)}, {"say": (1.0, 1.5, 1.0)}]
    given = assign(values, [Reward("say")], made=answer, advantage="rejection")
    assert of(given, "answer") == [0, 1, 0, 1, 1, 1]
    given = assign(values, [Reward("say")], made=answer, advantage="rejection", threshold=1.5)
    assert of(given, "answer") == [0, 0, 0, 0, 1, 0]


def test_scaling_over_the_batch():
    """0, 1, 2 and 0, 4, 8: deviations by group, std of all six: mean 2.5, squares 47.5, / 5 = 9.5."""
    values = [{"say": SEE}, {"say": (0.0, 4.0, 8.0)}]
    given = assign(values, [Reward("say")], made=answer, scale_rewards="batch")
    assert of(given, "answer") == near(*(x / (math.sqrt(9.5) + 1e-4) for x in (-1, 0, 1, -4, 0, 4)))


def test_each_reward_normalised_first():
    """GDPO: A_see + 0.5 A_say, here not scaled again. Both have mean 0, so nothing else happens."""
    estimator = GroupMean(AdvantageSettings(normalize_separately=True), "batch")
    values = torch.tensor([VALUES[0]["see"], VALUES[0]["say"]], dtype=torch.float64)[:, None]
    total = estimator.sum_rewards(values, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert total[0].tolist() == near(*(a + 0.5 * b for a, b in zip(A_SEE, A_SAY, strict=True)))


def test_dropped_siblings_take_no_part():
    """Sibling 0 is dropped: see = 1, 2: mean 1.5, std sqrt(0.5)."""
    given = assign(VALUES, [Reward("see")], dropped=[(0, 0)])
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert of(given, "image") == near(-a, a)
    assert given.stats["dropped/reward"] == 1 and given.stats["acts"] == 4


def test_failed_siblings_take_no_part_even_without_being_marked():
    def program(task):
        yield GenerateText(task.question)
        assert task.generation_index

    made = scenario("custom", acts={"answer": "text"})(program)
    given = assign([{"say": (9.0, 1.0, 2.0)}], [Reward("say")], made=made)
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert of(given, "answer") == near(-a, a)
    assert given.stats["dropped/scenario"] == 1


def test_a_reward_that_does_not_apply_is_left_out_of_the_sum():
    values = [{"see": (None,) * 3, "say": SAY}, {"see": SEE, "say": SAY}]
    joint = assign(values, [Reward("see"), Reward("say")])
    assert of(joint, "answer")[:3] == near(*A_SAY)  # group 1 sums to 1, 1, 2
    assert of(joint, "answer")[3:] == near(*(x / (math.sqrt(1 / 3) + 1e-4) for x in (-1 / 3, -1 / 3, 2 / 3)))


def test_an_act_whose_pools_do_not_apply_is_left_out():
    values = [{"see": (None,) * 3, "say": SAY}, {"see": (None,) * 3, "say": (None,) * 3}]
    given = assign(values, [DRAW, ANSWER], advantage_assignment="factorized")
    assert of(given, "image") == [] and of(given, "answer") == near(*A_08)
    assert given.stats["acts_without_reward"] == 9
    assert (given.stats["groups"], given.stats["groups_scored"]) == (2, 1)


def test_groups_without_variance_are_counted_and_kept():
    values = [{"see": (1.0,) * 3, "say": (0.0,) * 3}, {"see": (1.0,) * 3, "say": SAY}, {"see": SEE, "say": SAY}]
    given = assign(values, [DRAW, ANSWER], advantage_assignment="factorized")
    assert given.stats["groups_zero_variance"] == 1 and given.stats["frac_reward_zero_std"] == pytest.approx(1 / 3)
    assert given.stats["zero_variance/image"] == 2 and given.stats["zero_variance/answer"] == 1
    assert of(given, "image") == near(0, 0, 0, 0, 0, 0, *A_SEE)


def test_single_survivor_gets_zero_advantage():
    given = assign(VALUES, [Reward("see")], dropped=[(0, 0), (0, 1)])
    assert of(given, "image") == [0.0] and given.stats["groups_zero_variance"] == 1


def test_a_weight_of_zero_is_only_watched():
    given = assign(VALUES, [DRAW, Reward("say", 0.0, ("answer",))], advantage_assignment="factorized")
    assert of(given, "answer") == [] and of(given, "image") == near(*A_SEE)


def test_frozen_acts_get_no_advantage():
    def program(task):
        yield GenerateImage(task.prompt, trained=False), GenerateText(task.question)

    made = scenario("custom", acts={"image": "image", "answer": "text"}, untrained=("image",))(program)
    given = assign(VALUES, [DRAW, ANSWER], made=made)
    assert of(given, "image") == [] and len(of(given, "answer")) == 3
    check_reward_assignment(made, [ANSWER])


def test_every_trained_act_needs_a_reward():
    check_reward_assignment(generate_and_answer, [DRAW, ANSWER])
    check_reward_assignment(generate_and_answer, [Reward("both")])
    for rewards in ([DRAW], [DRAW, Reward("say", 0.0, ("answer",))]):
        with pytest.raises(ConfigError, match=r"act 'answer' of scenario .* trains, but no reward.*see \(weight 1"):
            check_reward_assignment(generate_and_answer, rewards)
    with pytest.raises(ConfigError, match="no reward is assigned to it: none"):
        check_reward_assignment(answer, [])
