"""The six scenarios of UniRL-Zero and PromptRL's refinement: which acts, in which contexts, and their options."""

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.config.algorithm import AlgorithmConfig
from motet.core.conversation import ImagePart, Text
from motet.core.errors import ConfigError, DataError
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.rewards import BoundReward, resolve, score_groups
from motet.scenarios import GenerateImage, GenerateText, last_answer_block_or_text, resolve_scenario, scenario
from motet.testing import FakePolicy
from motet.training.advantages import assign_advantages
from motet.training.rollout import encode_demonstrations, rollout

SOURCE = Image.new("RGB", (8, 8), "red")
ROW = {"prompt": "a red circle", "image": SOURCE, "instruction": "make it blue", "inverse": "make it red"}
SAMPLINGS = {"text": Sampling(max_tokens=60), "image": Sampling(), "denoising": Sampling(num_steps=3)}


def roll(made, G=1, policy=None, row=ROW):
    policy = policy or FakePolicy(writes=["so <answer> a plan</answer>"])
    (group,) = rollout(policy, made, [Task(0, row)], G, samplings=SAMPLINGS, seed=0, step=0)
    assert all(t.failure is None for t in group.trajectories), group.trajectories[0].failure
    return group


def shown(act):
    """The act's context as roles with their parts: texts, and pictures as they are."""
    return [(m.role, [p.text if isinstance(p, Text) else p.image for p in m.parts]) for m in act.context.messages]


def test_think_draw_shows_the_prompt_and_the_whole_thought():
    thought, drawing = roll(resolve_scenario("think_draw")).trajectories[0].acts
    ((role, (words,)),) = shown(thought)
    assert role == "user" and "a red circle" in words and "<answer> </answer>" in words
    assert shown(drawing) == [("user", ["a red circle"]), ("assistant", ["so <answer> a plan</answer>"])]


def test_an_edit_sees_the_source_and_its_undoing_only_the_edit():
    (alone,) = roll(resolve_scenario("edit")).trajectories[0].acts
    edit, restored = roll(resolve_scenario("edit_cycle")).trajectories[0].acts
    assert shown(alone) == shown(edit) == [("user", [SOURCE, "make it blue"])]
    assert shown(restored) == [("user", [edit.image, "make it red"])]


def test_reflect_and_its_control_differ_in_the_critique_alone():
    draft, critique, revision = roll(resolve_scenario("reflect")).trajectories[0].acts
    first, second = roll(resolve_scenario("redraw")).trajectories[0].acts
    before = [("user", ["a red circle"]), ("assistant", [draft.image])]
    assert shown(draft) == shown(first) == before[:1]
    assert shown(critique)[:2] == before and shown(critique)[2][0] == "user"
    assert shown(revision)[:3] == shown(critique)
    assert shown(revision)[3] == ("assistant", [critique.text])
    again = shown(revision)[4]
    assert shown(second) == [("user", ["a red circle"]), ("assistant", [first.image]), again]
    assert [act.trained for act in (draft, critique, revision)] == [True] * 3


@pytest.mark.parametrize("name", ["reflect", "redraw"])
def test_the_draft_may_be_left_out_of_the_loss(name):
    acts = roll(resolve_scenario(name).with_options({"train_draft": False})).trajectories[0].acts
    assert [act.trained for act in acts] == [False] + [True] * (len(acts) - 1)


def test_what_is_redrawn_sees_the_caption_alone():
    caption, redrawn = roll(resolve_scenario("caption_redraw")).trajectories[0].acts
    assert shown(caption) == [("user", [SOURCE, "what is in the picture?"])]
    assert shown(redrawn) == [("user", ["a plan"])]


@pytest.mark.parametrize(
    ("name", "last", "original"),
    [
        ("refine_draw", "drawing", [("user", ["a red circle"])]),
        ("refine_edit", "edit", [("user", [SOURCE, "make it blue"])]),
    ],
)
def test_the_first_siblings_keep_the_original(name, last, original):
    policy = FakePolicy(writes=["so <answer> a plan</answer>"])
    group = roll(resolve_scenario(name).with_options({"keep": 2}), G=4, policy=policy)
    acts = [[act.name for act in t.acts] for t in group.trajectories]
    assert acts == [[last]] * 2 + [["refined", last]] * 2
    assert [shown(t.acts[-1]) for t in group.trajectories[:2]] == [original] * 2
    refined, drawn = group.trajectories[2].acts
    assert shown(drawn) == [("user", [*original[0][1][:-1], "a plan"])]
    assert original[0][1][-1] in shown(refined)[0][1][-1]
    texts = [requests for kind, requests in policy.calls if kind == "text"]
    assert len({id(request.context) for request in texts[0]}) == 1  # siblings share the prefill


@pytest.mark.parametrize("name", ["think_draw", "refine_draw", "refine_edit", "caption_redraw"])
def test_siblings_share_what_they_are_asked(name):
    policy = FakePolicy(writes=["x"])
    roll(resolve_scenario(name), G=3, policy=policy)
    assert policy.prefills[0] == 1 and len(policy.calls[0][1]) == 3


@pytest.mark.parametrize(
    "name", ["think_draw", "edit", "edit_cycle", "reflect", "redraw", "caption_redraw", "refine_draw", "refine_edit"]
)
def test_all_perform_what_they_declare_by_denoising_too(name):
    made = resolve_scenario(name)
    for draws in ("image", "denoising"):
        acts = roll(made, policy=FakePolicy(kinds=("text", draws), writes=["x"])).trajectories[0].acts
        assert {act.name: "text" if act.kind == "text" else "image" for act in acts} == dict(made.acts)
        assert {act.kind for act in acts} <= {"text", draws}
    assert all(column in ROW for column in made.columns)


def test_demonstrations_fill_every_act():
    row = ROW | {"draft": SOURCE, "critique": "too red", "target": Image.new("RGB", (8, 8), "blue")}
    made = resolve_scenario("reflect").with_options({"train_draft": False})
    targets = {"draft": "draft", "critique": "critique", "revision": "target"}
    (one,) = encode_demonstrations(FakePolicy(), made, [Task(0, row)], targets)
    assert [act.trained for act in one.acts] == [False, True, True]
    assert shown(one.acts[2])[1] == ("assistant", [SOURCE]) and shown(one.acts[2])[3] == ("assistant", ["too red"])


def test_a_prompt_in_chat_form_is_put_into_the_instruction_in_words():
    row = ROW | {"prompt": [{"role": "user", "content": "a {blue} dog"}]}
    thought = roll(resolve_scenario("think_draw").with_options({"instruction": "plan {prompt}!"}), row=row)
    assert shown(thought.trajectories[0].acts[0]) == [("user", ["plan a {blue} dog!"])]


@pytest.mark.parametrize("instruction", ["plan it", "plan {promt}", "plan {prompt} {x}", "plan {prompt} {"])
def test_an_instruction_without_the_prompt_is_refused(instruction):
    with pytest.raises(ConfigError, match=r"must contain \{prompt\}"):
        roll(resolve_scenario("think_draw").with_options({"instruction": instruction}))


def test_a_row_without_the_column_is_named():
    with pytest.raises(DataError, match="no column 'inverse'"):
        roll(resolve_scenario("edit_cycle"), row={"image": SOURCE, "instruction": "x"})


@pytest.mark.parametrize(
    ("text", "refined"),
    [
        (" plain words ", "plain words"),
        ("<answer>one</answer> or <answer> two\nlines </answer> so", "two\nlines"),
        ("<answer>one</answer><answer> </answer>", "one"),
        ("<answer> <answer>inner</answer>", "inner"),
        ("<answer>never closed", "<answer>never closed"),
        ("", ""),
    ],
)
def test_what_a_thought_comes_to(text, refined):
    assert last_answer_block_or_text(text) == refined


# --- options


@scenario("mine", acts={"answer": "text"})
def mine(task, *, needed, times: float = 1.0, loud: bool = False, words=None, count: int = 1):
    yield GenerateText(task.question, name="answer", trained=loud)


def test_options_are_bound_and_can_be_bound_again():
    made = mine.with_options({"needed": "x", "times": 2}).with_options({"loud": True, "needed": "y"})
    assert made.options == {"needed": "y", "times": 2, "loud": True, "words": None, "count": 1}
    (asked,) = list(made(Task(0, {"question": "q"})))
    assert asked.trained and (made.name, made.acts) == (mine.name, mine.acts)
    assert mine.options["loud"] is False
    assert resolve_scenario("draw").with_options({}) is resolve_scenario("draw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neded": 1}, r"'mine' has no option 'neded'; its options are: needed, times.*Did you mean 'needed'"),
        ({}, "'mine' needs the option 'needed'"),
        ({"needed": 1, "loud": 1}, "loud=1 of the scenario 'mine' is no bool, such as False"),
        ({"needed": 1, "count": True}, "count=True"),
        ({"needed": 1, "count": 1.5}, "count=1.5"),
        ({"needed": 1, "times": "2"}, "times='2'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        mine.with_options(options)


def test_a_scenario_without_options_says_so():
    with pytest.raises(ConfigError, match="'draw' has no option 'keep'; it has none"):
        resolve_scenario("draw").with_options({"keep": 1})


def test_keep_is_a_number_of_siblings():
    with pytest.raises(ConfigError, match="keep=-1"):
        roll(resolve_scenario("refine_draw").with_options({"keep": -1}))


# --- credit where a sibling lacks an act


def credit_of(group, credit):
    def taste(completions):  # of the drawings: 0, 1, 2, 3
        return [float(n) for n, _ in enumerate(completions)]

    acts = {"refined": "text", "drawing": "image"}
    rewards = [
        resolve(RewardConfig(name="answer_format", acts=("refined",)), acts, ()),
        BoundReward("taste", 1.0, ("drawing",), taste, {}, frozenset({"completions"})),
    ]
    scores = score_groups([group], rewards)
    return scores[0], assign_advantages([group], scores, rewards, AlgorithmConfig(credit=credit, scale_rewards="none"))


@pytest.mark.parametrize("credit", ["joint", "factorized"])
def test_originals_get_the_mean_format_of_the_refined_and_stay_in_the_group(credit):
    def writes(request):
        return "<answer> x</answer>" if request.key[3] != 3 else "no block"

    made = resolve_scenario("refine_draw").with_options({"keep": 1})
    group = roll(made, G=4, policy=FakePolicy(writes=writes))
    scores, given = credit_of(group, credit)
    assert scores.values["answer_format"] == (pytest.approx(2 / 3), 1.0, 1.0, 0.0) and not scores.dropped
    assert given.stats["acts"] == 7
    drawings = [c.advantage for c in given.acts if c.act.name == "drawing"]
    refined = [c.advantage for c in given.acts if c.act.name == "refined"]
    if credit == "factorized":  # each pool has its own baseline: taste's mean is 1.5, format's 2/3
        assert drawings == pytest.approx([-1.5, -0.5, 0.5, 1.5])
        assert refined == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    else:  # sums 2/3, 2, 3, 3 with the mean 13/6
        assert drawings == pytest.approx([-1.5, -1 / 6, 5 / 6, 5 / 6])
        assert refined == pytest.approx(drawings[1:])


def test_a_group_of_originals_alone_has_no_format():
    group = roll(resolve_scenario("refine_draw").with_options({"keep": 4}), G=4)
    scores, given = credit_of(group, "factorized")
    assert scores.values["answer_format"] == (None,) * 4 and not scores.dropped
    assert given.stats["acts"] == 4


def test_pictures_are_what_scenarios_say():
    assert isinstance(next(resolve_scenario("edit")(Task(0, ROW))), GenerateImage)
    assert isinstance(Task(0, ROW).instruction.messages[0].parts[0], ImagePart)
