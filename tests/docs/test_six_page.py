"""docs/how-to/six-scenarios.md: its recipes are accepted, its names exist, its code is the example's and plays."""

import re
from pathlib import Path

import pytest
import yaml

from motet.config import parse_recipe
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.data import open_rows
from motet.rewards import built_in_rewards, resolve_all
from motet.scenarios import built_in_scenarios, resolve_scenario
from motet.shapes.options import TASKS
from motet.shapes.world import ShapesRows
from motet.testing import FakePolicy
from motet.training.advantages import check_reward_assignment
from motet.training.rollout import encode_demonstrations, rollout

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "how-to" / "six-scenarios.md").read_text()
SAMPLINGS = {"text": Sampling(max_tokens=80), "image": Sampling()}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_recipes_of_the_page_are_accepted(text):
    recipe = parse_recipe(yaml.safe_load(text) | {"policy": {"path": "x"}, "run": {"steps": 1}})
    scenario = resolve_scenario(recipe.scenario.name).with_options(recipe.scenario.options)
    rows = open_rows(recipe.data, scenario.columns)
    check_reward_assignment(scenario, resolve_all(recipe.rewards, scenario.acts, rows.columns))


def test_everything_that_the_page_names_exists():
    named = set(re.findall(r"^\| `(\w+)`(?:, `\w+`)?", PAGE, re.MULTILINE))
    known = {*built_in_scenarios(), *built_in_rewards(), *TASKS, "prompts"}
    assert named <= known and set(TASKS) <= named
    assert {*built_in_scenarios()} - named == {"generate_and_answer"}


@pytest.mark.parametrize(
    ("name", "task", "targets"),
    [
        ("answer", "reasoning", {"answer": "solution"}),
        ("think_then_generate", "layouts", {"thought": "thought", "image": "target"}),
        ("edit_cycle", "edits", {"edit": "edited", "restored": "image"}),
        ("reflect", "drafts", {"draft": "draft", "critique": "critique", "revision": "target"}),
    ],
)
def test_tasks_demonstrate_their_scenarios(name, task, targets):
    world = ShapesRows("train", 0, {"task": task})
    scenario = resolve_scenario(name)
    assert set(scenario.columns) <= set(world.columns) and set(targets) == set(scenario.acts)
    for trajectory in encode_demonstrations(FakePolicy(), scenario, [Task(n, world.row(n)) for n in range(3)], targets):
        assert [act.name for act in trajectory.acts] == list(targets)


def test_a_scenario_of_ones_own_in_under_twenty_lines():
    (shown,) = blocks("python")
    file = ROOT / "examples" / "own_case" / "interleaved.py"
    assert shown in file.read_text() and len(shown.splitlines()) < 20
    made = resolve_scenario(f"{file}:ask_and_edit").with_options({"wish": "what now?"})
    rows = [Task(0, {"prompt": "a red circle", "question": "what colour?"})]
    policy = FakePolicy(writes=["well, <answer>make it blue</answer>"])
    (group,) = rollout(policy, made, rows, 2, samplings=SAMPLINGS, seed=0, step=0)
    for trajectory in group.trajectories:
        drawing, wish, edit, answer = trajectory.acts
        assert [act.name for act in trajectory.acts] == list(made.acts)
        image, text = edit.context.messages[0].parts
        assert image.image is drawing.image and text.text == "make it blue"
        assert wish.context.text == "what now?" and answer.context.text == "what colour?"
        assert answer.context.messages[0].parts[0].image is edit.image
