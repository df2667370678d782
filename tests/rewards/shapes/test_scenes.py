"""Rewards of edits, cycles, critiques and revisions on images of the shapes world, and what they are shown."""

import asyncio
import math
from functools import cache

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.core.conversation import user
from motet.core.errors import ConfigError, DataError, RewardError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Group, ImageTokens, Sampling, Trajectory
from motet.rewards import BoundReward, bind_policy, resolve, score_groups
from motet.rewards.text.exact_match import answer_format
from motet.scenarios import resolve_scenario
from motet.shapes.render import render
from motet.shapes.scene import Scene, ShapeInstance
from motet.shapes.world import ShapesRows
from motet.testing import FakePolicy
from motet.training.rollout import rollout
from tests.rewards.image.test_pairwise import acted

REFLECT = {"draft": "image", "critique": "text", "revision": "image"}
CYCLE = {"edit": "image", "restored": "image"}
BLANK = render(Scene(4, ()), 32)


def bound(name, scenario=REFLECT, columns=("spec", "edited", "image", "draft"), acts=None, policy=None, **options):
    reward = resolve(RewardConfig(name=name, acts=acts, options=options), scenario, columns)
    return bind_policy([reward], policy or FakePolicy())[0]


@cache
def rows(task):
    world = ShapesRows("train", 0, {"task": task})
    return [world.row(i) for i in range(12)]


def columns(task):
    made = {name: [row[name] for row in rows(task)] for name in rows(task)[0]}
    return made | ({"images": [[image] for image in made["image"]]} if "image" in made else {})


# --- scenes


def test_an_edit_must_show_exactly_the_asked_scene():
    ask = columns("edits")
    right = [acted(edit=row["edited"]) for row in rows("edits")]
    lazy = [acted(edit=row["image"]) for row in rows("edits")]
    judge = bound("edit_shapes", CYCLE)
    assert judge(completions=right, **ask) == [1.0] * 12
    assert judge(completions=lazy, **ask) == [0.0] * 12
    shares = bound("edit_shapes", CYCLE, partial=1.0)(completions=lazy, **ask)
    cells = {"move": 14 / 16, "swap": 14 / 16}
    assert shares == pytest.approx([cells.get(row["kind"], 15 / 16) for row in rows("edits")])
    mixed = bound("edit_shapes", CYCLE, partial=0.2)(completions=right[:1] + lazy[1:2], **take(ask, 2))
    assert mixed == pytest.approx([1.0, 0.2 * shares[1]])


def take(ask, count):
    return {name: values[:count] for name, values in ask.items()}


def test_in_a_cycle_each_reward_looks_at_its_own_image():
    ask = columns("edits")
    good = [acted(edit=row["edited"], restored=row["image"]) for row in rows("edits")]
    still = [acted(edit=row["image"], restored=row["image"]) for row in rows("edits")]
    edits, back = bound("edit_shapes", CYCLE), bound("restored_shapes", CYCLE)
    assert edits(completions=good, **ask) == back(completions=good, **ask) == [1.0] * 12
    assert edits(completions=still, **ask) == [0.0] * 12  # doing nothing restores perfectly, and edits nothing
    assert back(completions=still, **ask) == [1.0] * 12
    assert back(completions=[acted(edit=row["edited"]) for row in rows("edits")], **ask) == [None] * 12


def test_a_regenerated_image_must_show_the_scene_of_the_input():
    ask = columns("edits")
    drawn = [acted(caption="x", regenerated=row["image"]) for row in rows("edits")[:6]]
    drawn += [acted(caption="x", regenerated=row["edited"]) for row in rows("edits")[6:]]
    reward = bound("scene_match", {"caption": "text", "regenerated": "image"}, acts=("caption",), act="regenerated")
    assert reward(completions=drawn, **ask) == [1.0] * 6 + [0.0] * 6
    assert reward.reads_acts == ("regenerated",) and reward.acts == ("caption",)


def test_an_act_may_be_matched_with_another_act():
    ask = take(columns("edits"), 2)
    first, second = rows("edits")[:2]
    drawn = [
        acted(edit=first["image"], restored=first["image"]),
        acted(edit=Image.new("RGB", (32, 32)), restored=BLANK),
    ]
    assert bound("scene_match", CYCLE, act="restored", to="edit")(completions=drawn, **ask) == [1.0, 0.0]
    assert second["image"].size == (32, 32)


def test_without_match_cells_only_the_objects_count():
    scene = Scene(
        4,
        (
            ShapeInstance(0, 0, "red", "circle"),
            ShapeInstance(1, 2, "red", "circle"),
            ShapeInstance(3, 3, "blue", "cross"),
        ),
    )
    moved = Scene(
        4,
        (
            ShapeInstance(0, 1, "red", "circle"),
            ShapeInstance(2, 2, "blue", "cross"),
            ShapeInstance(3, 3, "red", "circle"),
        ),
    )
    fewer = Scene(4, moved.objects[:2])
    drawn = [acted(restored=render(one, 32)) for one in (scene, moved, fewer)]
    ask = {"completions": drawn, "images": [[render(scene, 32)]] * 3}
    exact, loose = (bound("scene_match", CYCLE, act="restored", match_cells=match) for match in (True, False))
    assert exact(**ask) == [1.0, 0.0, 0.0] and loose(**ask) == [1.0, 1.0, 0.0]
    halfway = bound("scene_match", CYCLE, act="restored", match_cells=False, partial=0.5)
    assert halfway(**ask)[2] == pytest.approx(0.5 * 2 / 3)


def test_images_of_another_size_and_grid():
    world = ShapesRows("train", 0, {"task": "edits", "grid": 2, "canvas": 32, "max_objects": 3, "max_count": 3})
    row = world.row(0)
    ask = {
        "completions": [acted(edit=row["edited"].resize((64, 64), Image.Resampling.NEAREST))],
        "edited": [row["edited"]],
    }
    assert bound("edit_shapes", {"edit": "image"}, partial=1.0, grid=2)(**ask)[0] > 0
    ask["completions"] = [acted(edit=row["edited"])]
    assert bound("edit_shapes", {"edit": "image"}, grid=2)(**ask) == [1.0]
    with pytest.raises(
        DataError, match="column 'edited' is not an image of the small shapes world with 4 x 4 cells"
    ) as caught:
        bound("edit_shapes", {"edit": "image"})(**ask)
    assert "rewards.options.grid" in caught.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [({"grid": 1}, "grid=1 of 'edit_shapes'"), ({"partial": 2}, "partial=2"), ({"act": "edi"}, "Did you mean 'edit'")],
)
def test_wrong_options_of_scenes(options, message):
    with pytest.raises(ConfigError, match=message):
        bound("edit_shapes", CYCLE, **options)


# --- critiques


def criticised(row, text):
    return acted(draft=row["draft"], critique=text, revision=row["target"])


def test_planted_critiques_are_right_and_others_are_not():
    ask = columns("drafts")
    judge = bound("critique")
    assert judge(completions=[criticised(row, row["critique"]) for row in rows("drafts")], **ask) == [1.0] * 12
    wrong = ["everything" if row["mistake"] == "nothing" else "nothing" for row in rows("drafts")]
    said = [criticised(row, f"<answer>{text}</answer>") for row, text in zip(rows("drafts"), wrong, strict=True)]
    assert judge(completions=said, **ask) == [0.0] * 12
    assert {row["mistake"] for row in rows("drafts")} > {"nothing"}


SPEC = {"category": "x", "grid": 4, "relation": None, "groups": [{"count": 1, "shape": "circle", "colour": "red"}]}
TWO_WRONG = render(Scene(4, (ShapeInstance(0, 0, "blue", "circle"), ShapeInstance(1, 2, "green", "cross"))), 32)


@pytest.mark.parametrize(
    ("text", "exact", "f1"),
    [
        ("a1 is blue instead of red, c2 green cross is extra", 1.0, 1.0),
        ("C2 green cross is  extra, a1 is blue instead of red.", 1.0, 1.0),
        ("a1 is blue instead of red", 0.0, 2 / 3),
        ("a1 is blue instead of red, c2 green cross is extra, d4 is unclear", 0.0, 4 / 5),
        ("a1 is blue instead of red, a1 is blue instead of red", 0.0, 1 / 2),
        ("the circle is blue", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
    ],
)
def test_every_mistake_and_no_other(text, exact, f1):
    ask = {"completions": [acted(draft=TWO_WRONG, critique=f"<think>x</think><answer>{text}</answer>")], "spec": [SPEC]}
    assert bound("critique")(**ask) == [exact]
    assert bound("critique", partial=1.0)(**ask) == [pytest.approx(f1)]
    assert bound("critique", partial=0.5)(**ask) == [pytest.approx((exact + f1) / 2)]


def test_the_form_of_a_critique():
    right = "a1 is blue instead of red, c2 green cross is extra"
    ask = {"completions": [acted(draft=TWO_WRONG, critique=right)], "spec": [SPEC]}
    assert bound("critique")(**ask) == [0.0] and bound("critique", answer_tags=False)(**ask) == [1.0]
    twice = acted(draft=TWO_WRONG, critique=f"<answer>{right}</answer><answer>{right}</answer>")
    assert bound("critique")(completions=[twice], spec=[SPEC]) == [0.0]
    assert bound("critique")(completions=[twice, acted(draft=TWO_WRONG), []], spec=[None, SPEC, SPEC]) == [None] * 3


def test_a_draft_of_the_data_may_be_criticised():
    reward = bound("critique", {"answer": "text"}, act="answer", column="draft")
    ask = {name: columns("drafts")[name] for name in ("draft", "spec")}
    assert reward(completions=[acted(answer=row["critique"]) for row in rows("drafts")], **ask) == [1.0] * 12
    assert set(reward.required_columns) == {"spec", "draft"} and reward.reads_acts == ("answer",)
    with pytest.raises(ConfigError, match="name the act 'critique', which the scenario does not perform"):
        bound("critique", {"answer": "text"}, column="draft")


# --- improvement


def revised(*pairs):
    return [acted(draft=draft, critique="x", revision=revision) for draft, revision in pairs]


def test_improvement_by_hand():
    one = rows("drafts")[0]
    images = [(one["draft"], one["target"]), (one["target"], one["draft"]), (one["target"], one["target"])]
    assert one["mistake"] != "nothing"
    ask = {"completions": revised(*images), "prompts": [[]] * 3, "spec": [one["spec"]] * 3}
    assert bound("improvement", of="shapes")(**ask) == [1.0, -1.0, 0.0]
    part = bound("shapes", partial=1.0)(prompts=[[]], completions=[acted(draft=one["draft"])], spec=[one["spec"]])[0]
    found = bound("improvement", of="shapes", options={"partial": 1.0})(**ask)
    assert found == pytest.approx([1 - part, part - 1, 0.0])
    back = bound("improvement", of="shapes", before="revision", after="draft")
    assert back(**ask) == [-1.0, 1.0, 0.0]
    assert back(**ask | {"spec": [None] * 3}) == [None] * 3
    assert back(prompts=[[]], completions=[acted(draft=one["draft"])], spec=[one["spec"]]) == [None]


USER_FILE = """
import math
calls = []

async def slow(completions, level):
    drafts = [completion[0]["name"] == "draft" for completion in completions]
    return [math.nan if l < 0 else float(l) if draft else 10.0 for draft, l in zip(drafts, level)]

def asks(completions, policy):
    calls.append(len(completions))
    return [float(policy.version) for _ in completions]
"""


def test_any_reward_may_be_asked(tmp_path, monkeypatch):
    (tmp_path / "improving.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    slow = bound("improvement", of="improving.py:slow", columns=("level",))
    ask = {"prompts": [[]] * 2, "completions": revised((BLANK, BLANK)) * 2}
    first, second = asyncio.run(slow(**ask, level=[3, -1]))
    assert first == 7.0 and math.isnan(second) and slow.required_columns == ("level",)
    assert bound("improvement", of="improving.py:asks", columns=())(**ask) == [0.0, 0.0]
    with pytest.raises(RewardError, match="'improvement' needs column 'level'"):
        bound("improvement", of="improving.py:slow", columns=("prompt",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "of=None of 'improvement'"),
        ({"of": "shaps"}, "Did you mean 'shapes'"),
        ({"of": "shapes", "options": 3}, "options=3"),
        ({"of": "shapes", "options": {"partal": 1}}, "Did you mean 'partial'"),
        ({"of": "shapes", "after": "draft"}, "after='draft' of 'improvement' is the same act as `before`"),
        ({"of": "shapes", "before": "draught"}, "name the act 'draught'.*Did you mean 'draft'"),
    ],
)
def test_wrong_options_of_improvement(options, message):
    with pytest.raises(ConfigError, match=message):
        bound("improvement", **options)


def test_the_reference_is_kept_for_a_reward_that_asks_it():
    assert bound("improvement", of="shapes").uses_reference is False
    reward = resolve(RewardConfig(name="improvement", options={"of": "token_matching"}), REFLECT, ("prompt",))
    assert reward.uses_reference is True and reward.required_columns == ("prompt",)


# --- what a reward is shown


class DiffusionGenerator(FakePolicy):
    """Draws the draft, then the target of the row that it is shown in `images`."""

    def __init__(self, images, **settings):
        super().__init__(**settings)
        self.images = images

    def act(self, requests, sampling):
        acts = super().act(requests, sampling)
        for act in acts:
            if isinstance(act, ImageTokens):
                object.__setattr__(act, "image", self.images[act.name])
        return acts


def test_critique_gets_improvement_of_revision():
    row = next(row for row in rows("drafts") if row["mistake"] != "nothing")
    policy = DiffusionGenerator({"draft": row["draft"], "revision": row["target"]}, writes=[row["critique"]])
    task, samplings = Task(0, row), {"text": Sampling(), "image": Sampling()}
    groups = rollout(policy, resolve_scenario("reflect"), [task], 2, samplings=samplings, seed=0, step=0)
    better = bound("improvement", acts=("critique",), of="shapes")
    named = bound("critique", acts=("critique",))
    (scores,) = score_groups(groups, [better, named])
    assert scores.values == {"improvement": (1.0, 1.0), "critique": (1.0, 1.0)} and not scores.dropped
    assert better.acts == ("critique",)


def write(name="refined"):
    return FakePolicy(writes=["x"]).act([Request("text", name, user("q"), (0,))], Sampling())[0]


def sample(acts):
    return Trajectory(Task(0, {}), tuple(acts))


def test_a_reward_of_an_absent_act_gives_the_mean_of_the_others():
    group = Group(Task(0, {}), tuple(sample([write(name)]) for name in ("other", "refined", "refined", "refined")))

    def score(values, acts=("refined",)):
        rewards = [BoundReward("r", 1.0, acts, lambda **_: values, {}, None)]
        (scores,) = score_groups([group], rewards)
        return scores

    assert score([None, 1.0, 0.0, 0.5]).values["r"] == (0.5, 1.0, 0.0, 0.5)
    assert score([0.25, 1.0, 0.0, 0.5]).values["r"][0] == 0.25  # the reward's own word counts
    kept = score([None, 1.0, math.nan, 0.5])
    assert kept.values["r"] == (0.75, 1.0, None, 0.5) and set(kept.dropped) == {2}
    assert set(score([None, None, 0.0, 1.0]).dropped) == {1}  # performed and not judged: dropped, as ever
    assert set(score([None, 1.0, 0.0, 1.0], acts=("refined", "other")).dropped) == {0}
    assert score([None] * 4).values["r"] == (None,) * 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<answer>a plan</answer>", 1.0),
        ("well\nso <answer>\na plan\n</answer> that is it", 1.0),
        ("<think> x</think><answer> y</answer>", 1.0),
        ("<answer> </answer>", 0.0),
        ("<answer>a</answer><answer>b</answer>", 0.0),
        ("<think><answer>a</answer></think>", 0.0),
        ("a plan", 0.0),
        ("", 0.0),
    ],
)
def test_the_format_of_a_thought(text, value):
    assert answer_format([acted(thought=text), []]) == [value, None]
