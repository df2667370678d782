"""Tasks of reasoning-gym: rows, their scorer, and what is rejected."""

import pytest

from motet.config import parse_recipe
from motet.config.schema import DataConfig, RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.data import open_rows
from motet.rewards import resolve

pytest.importorskip("reasoning_gym")
TASKS = {"leg_counting": {"max_animals": 3}, "chain_sum": {"min_terms": 2}, "spell_backward": {}}


def rows(task="leg_counting", split="train", size=50, seed=0, **options):
    return open_rows(DataConfig(source="reasoning_gym", split=split, size=size, options={"task": task, **options}),
                     ("question",), seed=seed)  # fmt: skip


def score(texts, made_of, **options):
    reward = resolve(RewardConfig(name="reasoning_gym", options=options), {"answer": "text"}, ("reasoning_gym",))
    chats = [[{"role": "assistant", "name": "answer", "content": text}] for text in texts]
    return reward(prompts=[[]] * len(texts), completions=chats, reasoning_gym=made_of)


@pytest.mark.parametrize("task", TASKS)
def test_the_gold_answer_scores_1_and_another_less(task):
    for row in map(rows(task, **TASKS[task]).task, range(3)):
        gold, made_of = row["answer"], row["reasoning_gym"]
        right, wrong = score([f"<answer>{gold}</answer>", "<answer>none of it</answer>"], [made_of] * 2)
        assert right == 1.0 and 0.0 <= wrong < 1.0
        assert score([gold, gold], [made_of, None]) == [0.0, None]
        assert score([gold], [made_of], answer_tags=False) == [1.0]


def test_rows_are_those_of_the_seed_and_splits_differ():
    assert [rows().task(n)["question"] for n in range(5)] == [rows().task(n)["question"] for n in range(5)]
    train, test, other = (
        {source.task(n)["question"] for n in range(20)} for source in (rows(), rows(split="test"), rows(seed=1))
    )
    assert not train & test and not train & other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "leg_countin"}, "Did you mean 'leg_counting'"),
        ({"task": None}, "data.options.task=None"),
        ({"max_animal": 3}, "are not valid: TypeError"),
        ({"min_animals": 9, "max_animals": 3}, "are not valid: AssertionError"),
        ({"split": "validation"}, "is not a split of reasoning_gym"),
    ],
)
def test_what_is_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        rows(**options)


def test_rows_of_another_source_are_an_error():
    with pytest.raises(RewardError, match=r"cannot score '4' for the row \{'task': 'nowhere'"):
        score(["<answer>4</answer>"], [{"task": "nowhere", "index": 0, "settings": {}}])


def test_a_recipe_trains_on_a_task(tiny_checkpoint, tmp_path):
    from tests.runs import mapping, run_loop

    data = {"source": "reasoning_gym", "options": {"task": "leg_counting", "max_animals": 3}}
    recipe = mapping(tiny_checkpoint, scenario="answer", rewards=None, run={"steps": 1}, algorithm=None)
    recipe |= {"data": data, "rewards": [{"name": "reasoning_gym"}]}
    (seen,) = run_loop(parse_recipe(recipe), tmp_path / "run")
    assert seen["rewards/reasoning_gym/mean"] == 0.0
