"""The built-in scenarios: which acts, in which contexts, and their options."""

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


def context_of(act):
    """The act's context as roles with their parts: texts and PIL images."""
    return [(m.role, [p.text if isinstance(p, Text) else p.image for p in m.parts]) for m in act.context.messages]


def test_think_then_generate_has_the_prompt_and_the_whole_thought():
    thought, image = roll(resolve_scenario("think_then_generate")).trajectories[0].acts
    ((role, (text,)),) = context_of(thought)
    assert role == "user" and "a red circle" in text and "<answer> </answer>" in text
    assert context_of(image) == [("user", ["a red circle"]), ("assistant", ["so <answer> a plan</answer>"])]


def test_edit_has_the_source_and_restored_only_the_edit():
    (alone,) = roll(resolve_scenario("edit")).trajectories[0].acts
    edit, restored = roll(resolve_scenario("edit_cycle")).trajectories[0].acts
    assert context_of(alone) == context_of(edit) == [("user", [SOURCE, "make it blue"])]
    assert context_of(restored) == [("user", [edit.image, "make it red"])]


def test_reflect_and_regenerate_differ_in_the_critique_alone():
    draft, critique, revision = roll(resolve_scenario("reflect")).trajectories[0].acts
    first, second = roll(resolve_scenario("regenerate")).trajectories[0].acts
    before = [("user", ["a red circle"]), ("assistant", [draft.image])]
    assert context_of(draft) == context_of(first) == before[:1]
    assert context_of(critique)[:2] == before and context_of(critique)[2][0] == "user"
    assert context_of(revision)[:3] == context_of(critique)
    assert context_of(revision)[3] == ("assistant", [critique.text])
    last_turn = context_of(revision)[4]
    assert context_of(second) == [("user", ["a red circle"]), ("assistant", [first.image]), last_turn]
    assert [act.trained for act in (draft, critique, revision)] == [True] * 3


@pytest.mark.parametrize("name", ["reflect", "regenerate"])
def test_the_draft_may_be_left_out_of_the_loss(name):
    acts = roll(resolve_scenario(name).with_options({"train_draft": False})).trajectories[0].acts
    assert [act.trained for act in acts] == [False] + [True] * (len(acts) - 1)


def test_caption_cycle_generates_from_the_caption_alone():
    caption, regenerated = roll(resolve_scenario("caption_cycle")).trajectories[0].acts
    assert context_of(caption) == [("user", [SOURCE, "what is in the picture?"])]
    assert context_of(regenerated) == [("user", ["a plan"])]


@pytest.mark.parametrize(
    ("name", "last", "original"),
    [
        ("refine_prompt", "image", [("user", ["a red circle"])]),
        ("refine_edit", "edit", [("user", [SOURCE, "make it blue"])]),
    ],
)
def test_the_first_generations_keep_the_original(name, last, original):
    policy = FakePolicy(writes=["so <answer> a plan</answer>"])
    group = roll(resolve_scenario(name).with_options({"keep": 2}), G=4, policy=policy)
    acts = [[act.name for act in t.acts] for t in group.trajectories]
    assert acts == [[last]] * 2 + [["refined", last]] * 2
    assert [context_of(t.acts[-1]) for t in group.trajectories[:2]] == [original] * 2
    refined, image = group.trajectories[2].acts
    assert context_of(image) == [("user", [*original[0][1][:-1], "a plan"])]
    assert original[0][1][-1] in context_of(refined)[0][1][-1]
    texts = [requests for kind, requests in policy.calls if kind == "text"]
    assert len({id(request.context) for request in texts[0]}) == 1  # the group shares the prefill


@pytest.mark.parametrize("name", ["think_then_generate", "refine_prompt", "refine_edit", "caption_cycle"])
def test_a_group_shares_its_first_context(name):
    policy = FakePolicy(writes=["x"])
    roll(resolve_scenario(name), G=3, policy=policy)
    assert policy.prefills[0] == 1 and len(policy.calls[0][1]) == 3


@pytest.mark.parametrize(
    "name",
    [
        "think_then_generate",
        "edit",
        "edit_cycle",
        "reflect",
        "regenerate",
        "caption_cycle",
        "refine_prompt",
        "refine_edit",
    ],
)
def test_all_request_what_they_declare_and_denoising_serves_for_images(name):
    made = resolve_scenario(name)
    for image_kind in ("image", "denoising"):
        acts = roll(made, policy=FakePolicy(kinds=("text", image_kind), writes=["x"])).trajectories[0].acts
        assert {act.name: "text" if act.kind == "text" else "image" for act in acts} == dict(made.acts)
        assert {act.kind for act in acts} <= {"text", image_kind}
    assert all(column in ROW for column in made.columns)


def test_encoded_demonstrations_have_every_act():
    row = ROW | {"draft": SOURCE, "critique": "too red", "target": Image.new("RGB", (8, 8), "blue")}
    made = resolve_scenario("reflect").with_options({"train_draft": False})
    targets = {"draft": "draft", "critique": "critique", "revision": "target"}
    (one,) = encode_demonstrations(FakePolicy(), made, [Task(0, row)], targets)
    assert [act.trained for act in one.acts] == [False, True, True]
    assert context_of(one.acts[2])[1] == ("assistant", [SOURCE]) and context_of(one.acts[2])[3] == (
        "assistant",
        ["too red"],
    )


def test_a_chat_prompt_is_rendered_as_text():
    row = ROW | {"prompt": [{"role": "user", "content": "a {blue} dog"}]}
    thought = roll(resolve_scenario("think_then_generate").with_options({"instruction": "plan {prompt}!"}), row=row)
    assert context_of(thought.trajectories[0].acts[0]) == [("user", ["plan a {blue} dog!"])]


@pytest.mark.parametrize("instruction", ["plan it", "plan {promt}", "plan {prompt} {x}", "plan {prompt} {"])
def test_an_instruction_without_the_prompt_raises(instruction):
    with pytest.raises(ConfigError, match=r"must contain \{prompt\}"):
        roll(resolve_scenario("think_then_generate").with_options({"instruction": instruction}))


def test_a_row_without_the_column_raises():
    with pytest.raises(DataError, match="no column 'inverse'"):
        roll(resolve_scenario("edit_cycle"), row={"image": SOURCE, "instruction": "x"})


@pytest.mark.parametrize(
    ("text", "refined"),
    [
        (" plain text ", "plain text"),
        ("<answer>one</answer> or <answer> two\nlines </answer> so", "two\nlines"),
        ("<answer>one</answer><answer> </answer>", "one"),
        ("<answer> <answer>inner</answer>", "inner"),
        ("<answer>never closed", "<answer>never closed"),
        ("", ""),
    ],
)
def test_last_answer_block_or_text(text, refined):
    assert last_answer_block_or_text(text) == refined


# --- options


@scenario("mine", acts={"answer": "text"})
def mine(task, *, needed, times: float = 1.0, strict: bool = False, note=None, count: int = 1):
    yield GenerateText(task.question, name="answer", trained=strict)


def test_options_can_be_bound_twice():
    made = mine.with_options({"needed": "x", "times": 2}).with_options({"strict": True, "needed": "y"})
    assert made.options == {"needed": "y", "times": 2, "strict": True, "note": None, "count": 1}
    (request,) = list(made(Task(0, {"question": "q"})))
    assert request.trained and (made.name, made.acts) == (mine.name, mine.acts)
    assert mine.options["strict"] is False
    assert resolve_scenario("text_to_image").with_options({}) is resolve_scenario("text_to_image")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neded": 1}, r"'mine' has no option 'neded'; its options are: needed, times.*Did you mean 'needed'"),
        ({}, "'mine' needs the option 'needed'"),
        ({"needed": 1, "strict": 1}, "strict=1 of the scenario 'mine' is not a bool"),
        ({"needed": 1, "count": True}, "count=True"),
        ({"needed": 1, "count": 1.5}, "count=1.5"),
        ({"needed": 1, "times": "2"}, "times='2'"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        mine.with_options(options)


def test_a_scenario_without_options_says_so():
    with pytest.raises(ConfigError, match="'text_to_image' has no option 'keep'; it has no options"):
        resolve_scenario("text_to_image").with_options({"keep": 1})


def test_a_negative_keep_raises():
    with pytest.raises(ConfigError, match="keep=-1"):
        roll(resolve_scenario("refine_prompt").with_options({"keep": -1}))


# --- advantages where a generation of the group lacks an act


def advantages_of(group, assignment):
    def taste(completions):  # of the images: 0, 1, 2, 3
        return [float(n) for n, _ in enumerate(completions)]

    acts = {"refined": "text", "image": "image"}
    rewards = [
        resolve(RewardConfig(name="answer_format", acts=("refined",)), acts, ()),
        BoundReward("taste", 1.0, ("image",), taste, {}, frozenset({"completions"})),
    ]
    scores = score_groups([group], rewards)
    return scores[0], assign_advantages(
        [group], scores, rewards, AlgorithmConfig(advantage_assignment=assignment, scale_rewards="none")
    )


@pytest.mark.parametrize("assignment", ["joint", "factorized"])
def test_originals_get_the_mean_format_of_the_refined_and_stay_in_the_group(assignment):
    def writes(request):
        return "<answer> x</answer>" if request.key[3] != 3 else "no block"

    made = resolve_scenario("refine_prompt").with_options({"keep": 1})
    group = roll(made, G=4, policy=FakePolicy(writes=writes))
    scores, given = advantages_of(group, assignment)
    assert scores.values["answer_format"] == (pytest.approx(2 / 3), 1.0, 1.0, 0.0) and not scores.dropped
    assert given.stats["acts"] == 7
    of_images = [c.advantage for c in given.acts if c.act.name == "image"]
    refined = [c.advantage for c in given.acts if c.act.name == "refined"]
    if assignment == "factorized":  # each pool has its own baseline: taste's mean is 1.5, format's 2/3
        assert of_images == pytest.approx([-1.5, -0.5, 0.5, 1.5])
        assert refined == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    else:  # sums 2/3, 2, 3, 3 with the mean 13/6
        assert of_images == pytest.approx([-1.5, -1 / 6, 5 / 6, 5 / 6])
        assert refined == pytest.approx(of_images[1:])


def test_a_group_of_originals_alone_has_no_format():
    group = roll(resolve_scenario("refine_prompt").with_options({"keep": 4}), G=4)
    scores, given = advantages_of(group, "factorized")
    assert scores.values["answer_format"] == (None,) * 4 and not scores.dropped
    assert given.stats["acts"] == 4


def test_edit_requests_an_image_with_the_source_in_its_context():
    assert isinstance(next(resolve_scenario("edit")(Task(0, ROW))), GenerateImage)
    assert isinstance(Task(0, ROW).instruction.messages[0].parts[0], ImagePart)
