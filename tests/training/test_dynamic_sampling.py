"""Groups without reward variance are replaced by groups of further prompts, at most so many times a step."""

import json

import pytest

from motet.config import DataConfig
from motet.data import ResumableSampler, open_rows
from tests.runs import mapping, metrics, run_loop

FLAT = [True, False, True, True, False, False, False, False, True, False, False, False]
"""By place in the order in which a run samples the rows. Three prompts a step: the first step has two flat groups."""


def split(completions, flat, **columns):
    """0 for a flat row; else 0 and 1 in turn, which vary in a group of two."""
    return [0.0 if row else float(n % 2) for n, row in enumerate(flat)]


def recipe(checkpoint, folder, limit, steps=1):
    file = folder / "rows.jsonl"
    blank = [{"question": f"q{n}", "flat": False} for n in range(len(FLAT))]
    file.write_text("\n".join(map(json.dumps, blank)))
    order = [task.index for task in ResumableSampler(open_rows(DataConfig(source=str(file))), 0).next(len(FLAT))]
    file.write_text("\n".join(json.dumps({**row, "flat": FLAT[order.index(n)]}) for n, row in enumerate(blank)))
    return mapping(
        checkpoint,
        scenario="answer",
        data={"source": str(file), "options": {}},
        rewards=[{"name": f"{__file__}:split"}],
        algorithm={"num_generations": 2, "dynamic_sampling": limit, "loss": "dapo"},
        run={"steps": steps, "prompts_per_step": 3},
    )


@pytest.mark.parametrize(
    ("limit", "replaced", "discarded", "flat", "drawn", "reward"),
    [
        # Rows 0, 1, 2: 0 and 2 are flat. A further rollout of two: row 4 takes the place of row 0, row 3 is flat too.
        (1, 1, 2, 1, 5, 2 * 0.5 / 5),
        # Another one, of one: row 5 takes the place of row 2. All groups vary, so there is no third rollout.
        (2, 2, 3, 0, 6, 3 * 0.5 / 6),
        (5, 2, 3, 0, 6, 3 * 0.5 / 6),
    ],
)
def test_flat_groups_are_replaced_up_to_the_limit(
    tiny_checkpoint, tmp_path, limit, replaced, discarded, flat, drawn, reward
):
    """The reward is a mean over all that was rolled out, the shares are of the groups that are trained on."""
    (step,) = run_loop(recipe(tiny_checkpoint, tmp_path, limit), tmp_path / "run")
    assert (step["groups_replaced"], step["groups_discarded"]) == (replaced, discarded)
    assert (step["groups"], step["groups_zero_variance"]) == (3, flat)
    assert step["frac_reward_zero_std"] == pytest.approx(flat / 3) and step["reward"] == pytest.approx(reward)
    assert step["acts"] == 6
    state = json.loads(next((tmp_path / "run" / "checkpoints").glob("step_*/trainer_state.json")).read_text())
    assert state["cursors"][""]["drawn"] == drawn


def test_without_it_nothing_is_replaced(tiny_checkpoint, tmp_path):
    (step,) = run_loop(recipe(tiny_checkpoint, tmp_path, None), tmp_path / "run")
    assert "groups_replaced" not in step and step["groups_zero_variance"] == 2


def test_resuming_samples_the_same_prompts(tiny_checkpoint, tmp_path):
    content = recipe(tiny_checkpoint, tmp_path, 3, steps=4)
    run_loop(content, tmp_path / "whole")
    run_loop(content, tmp_path / "parts", stop_after=2)
    run_loop(content, tmp_path / "parts")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert sum(line["groups_replaced"] for line in metrics(tmp_path / "whole")) > 2
