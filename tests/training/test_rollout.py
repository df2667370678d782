"""Playing scenarios in lockstep: batching, sharing, noise, failures; and demonstrations."""

import pytest
from PIL import Image

from motet.core.errors import ConfigError, ContextError, DataError, NumericsError
from motet.core.protocols import Policy
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.scenarios import (
    GenerateImage,
    GenerateText,
    Scenario,
    answer,
    as_image_turn,
    as_text_turn,
    built_in_scenarios,
    generate_and_answer,
    scenario,
    text_to_image,
    user,
)
from motet.testing import FakePolicy
from motet.training.rollout import encode_demonstrations, rollout

SAMPLINGS = {"text": Sampling(max_tokens=100), "image": Sampling(), "denoising": Sampling(num_steps=3)}


def tasks(count=2):
    return [Task(10 + n, {"prompt": f"p{n}", "question": f"q{n}", "answer": "4"}) for n in range(count)]


def run(made, policy=None, count=2, G=3, seed=0, step=0, rows=None):
    policy = policy or FakePolicy()
    return rollout(policy, made, rows or tasks(count), G, samplings=SAMPLINGS, seed=seed, step=step)


@scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"})
def reflect(task):
    draft = yield GenerateImage(task.prompt, name="draft", trained=False)
    critique = yield GenerateText(task.prompt + as_image_turn(draft) + user("?"), name="critique")
    yield GenerateImage(task.prompt + as_text_turn(critique), name="revision")


def custom(program, acts=None, **settings) -> Scenario:
    return scenario("custom", acts=acts or {"answer": "text"}, **settings)(program)


def test_the_fake_is_a_policy():
    assert isinstance(FakePolicy(), Policy)


def test_groups_come_in_the_order_of_tasks_and_siblings():
    groups = run(text_to_image)
    assert [group.task.index for group in groups] == [10, 11]
    for group in groups:
        assert [t.task.generation_index for t in group.trajectories] == [0, 1, 2] and group.valid_indices == [0, 1, 2]
        assert all([a.name for a in t.acts] == ["image"] for t in group.trajectories)


def test_one_call_per_kind_and_tick():
    policy = FakePolicy()
    run(reflect, policy)
    assert [(kind, len(requests)) for kind, requests in policy.calls] == [("image", 6), ("text", 6), ("image", 6)]
    policy = FakePolicy()
    run(generate_and_answer, policy)
    assert [(kind, len(requests)) for kind, requests in policy.calls] == [("text", 6), ("image", 6)]


def test_siblings_share_one_prefill():
    policy = FakePolicy()
    run(generate_and_answer, policy)
    assert policy.prefills == [2, 2]


def test_a_duet_receives_both_acts_in_the_order_it_asked():
    seen = []

    def program(task):
        acts = yield GenerateImage(task.prompt), GenerateText(task.question)
        assert isinstance(acts, tuple)
        seen.append([a.kind for a in acts])
        second = yield [GenerateText(task.question, name="answer")]
        seen.append([a.kind for a in second])

    groups = run(custom(program, {"answer": "text", "image": "image"}), count=1, G=1)
    assert seen == [["image", "text"], ["text"]]
    assert [a.name for a in groups[0].trajectories[0].acts] == ["image", "answer", "answer"]


def test_each_program_receives_its_own_act():
    def program(task):
        act = yield GenerateText(task.question)
        assert act.context is task.question
        second = yield GenerateText(task.question + as_text_turn(act), name="answer")
        assert second.context.text.endswith(act.text)

    assert all(len(group.valid_indices) == 3 for group in run(custom(program)))


def test_noise_is_named_by_seed_step_task_sibling_and_act():
    policy = FakePolicy()
    run(generate_and_answer, policy, G=2, seed=7, step=3)
    (_, texts), (_, images) = policy.calls
    assert [r.key for r in images] == [(7, 3, 10, 0, 0), (7, 3, 10, 1, 0), (7, 3, 11, 0, 0), (7, 3, 11, 1, 0)]
    assert [r.key for r in texts] == [(7, 3, 10, 0, 1), (7, 3, 10, 1, 1), (7, 3, 11, 0, 1), (7, 3, 11, 1, 1)]
    policy = FakePolicy()
    run(reflect, policy, count=1, G=1)
    assert [requests[0].key[-1] for _, requests in policy.calls] == [0, 1, 2]


def test_a_trajectory_does_not_depend_on_its_batch():
    def said(groups):
        return {
            (t.task.index, t.task.generation_index): [a.ids.tolist() for a in t.acts]
            for g in groups
            for t in g.trajectories
        }

    together = said(run(reflect, count=3, G=4))
    alone = said(run(reflect, rows=[tasks(3)[1]], G=2))
    assert alone.items() <= together.items()
    assert said(run(reflect, step=1, count=3, G=4)) != together != said(run(reflect, seed=1, count=3, G=4))


def test_programs_of_different_length():
    def program(task):
        for _ in range(1 + task.generation_index):
            yield GenerateText(task.question)

    policy = FakePolicy()
    groups = run(custom(program), policy)
    assert [[len(t.acts) for t in g.trajectories] for g in groups] == [[1, 2, 3]] * 2
    assert [len(requests) for _, requests in policy.calls] == [6, 4, 2]


def test_frozen_acts_stay_frozen():
    acts = run(reflect, count=1, G=1)[0].trajectories[0].acts
    assert [act.trained for act in acts] == [False, True, True]


def test_sampling_goes_by_kind():
    acts = run(generate_and_answer, count=1, G=1)[0].trajectories[0].acts
    assert [act.sampling for act in acts] == [SAMPLINGS["image"], SAMPLINGS["text"]]


def test_a_drawing_is_made_as_the_policy_draws():
    policy = FakePolicy(kinds=("text", "denoising"))
    group = run(generate_and_answer, policy, count=1, G=1)[0]
    assert [act.kind for act in group.trajectories[0].acts] == ["denoising", "text"]
    both = FakePolicy(kinds=("image", "denoising"))
    run(custom(lambda task: (r for r in [GenerateImage(task.prompt)]), {"image": "denoising"}), both)
    run(text_to_image, both)
    assert [kind for kind, _ in both.calls] == ["denoising", "image"]


# failures


def test_a_program_that_raises_loses_its_own_trajectory():
    cleaned = []

    def program(task):
        try:
            act = yield GenerateText(task.question)
            if task.generation_index == 1:
                raise ValueError(f"odd {act.name}\nmore")
            yield GenerateText(task.question)
        finally:
            cleaned.append(task.generation_index)

    group = run(custom(program), count=1)[0]
    assert group.valid_indices == [0, 2]
    lost = group.trajectories[1]
    assert lost.failure.where == "scenario" and len(lost.acts) == 1
    assert lost.failure.message.startswith("ValueError: odd answer (test_rollout.py:")
    assert [len(group.trajectories[g].acts) for g in (0, 2)] == [2, 2]
    assert sorted(cleaned) == [0, 1, 2]


def test_a_program_that_raises_before_its_first_act():
    def program(task):
        assert task.generation_index
        yield GenerateText(task.question)

    assert run(custom(program), count=1)[0].valid_indices == [1, 2]


def test_errors_of_the_data_stop_the_run():
    def program(task):
        yield GenerateText(task["absent"])

    with pytest.raises(DataError, match="Row 10 has no column 'absent'"):
        run(custom(program))


def test_a_prompt_that_does_not_fit_stops_the_run():
    rows = [Task(0, {"question": "short"}), Task(1, {"question": "x" * 100})]
    with pytest.raises(ContextError, match="100 characters"):
        run(answer, FakePolicy(max_context=50), rows=rows)


def test_a_context_that_the_policy_outgrew_loses_its_trajectory():
    """Siblings 1 and 4 of row 1 write at length; the others go on as if nothing had been."""

    def program(task):
        act = yield GenerateText(task.question)
        yield GenerateText(task.question + as_text_turn(act))

    def long(request):
        return "w" * 100 if request.key[2:] in ((11, 1, 0), (11, 4, 0)) else f"w{request.key}"

    groups = run(custom(program), FakePolicy(writes=long, max_context=50), G=5)
    assert groups[0].valid_indices == [0, 1, 2, 3, 4] and groups[1].valid_indices == [0, 2, 3]
    for g in (1, 4):
        lost = groups[1].trajectories[g]
        assert lost.failure.where == "policy" and "limit is 50" in lost.failure.message and len(lost.acts) == 1
    free = run(custom(program), FakePolicy(writes=long), G=5)
    for p, g in [(p, g) for p, group in enumerate(groups) for g in group.valid_indices]:
        assert groups[p].trajectories[g].acts[1].text == free[p].trajectories[g].acts[1].text


def test_other_errors_of_the_policy_stop_the_run():
    def program(task):
        yield GenerateText(task.question)
        yield GenerateText(task.question)

    for error in (NumericsError("NaN.", fix="x"), RuntimeError("out of memory")):

        def second_act(request, error=error):
            if request.key[-1]:
                raise error
            return "fine"

        with pytest.raises(type(error)):
            run(custom(program), FakePolicy(writes=second_act))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda t: GenerateText(t.question, name="anser"), r"asked for the text 'anser'.*Did you mean 'answer'"),
        (lambda t: GenerateImage(t.prompt, name="answer"), r"asked for the image 'answer'.*answer \(text\)"),
        (lambda t: GenerateText(t.question, name="image"), r"asked for the text 'image'"),
        (lambda t: (), r"yielded an empty tuple"),
        (lambda t: "hello", r"yielded a str, 'hello'"),
        (lambda t: (GenerateText(t.question), None), r"yielded a NoneType"),
        (
            lambda t: GenerateText(t.question, name="thought"),
            r"declares 'thought' as frozen, but asks for it as trained",
        ),
    ],
)
def test_requests_that_contradict_the_declaration(asked, message):
    def program(task):
        yield asked(task)

    acts = {"answer": "text", "image": "image", "thought": "text"}
    with pytest.raises(ConfigError, match=message):
        run(custom(program, acts, untrained=("thought",)))


def test_programs_that_never_act():
    def silent(task):
        return
        yield

    with pytest.raises(ConfigError, match="'custom' ended without an act"):
        run(custom(silent))
    with pytest.raises(ConfigError, match=r"returned a NoneType: not a generator function"):
        run(custom(lambda task: None))


def test_what_the_policy_cannot_perform():
    with pytest.raises(ConfigError, match=r"asks for 'image' \(image\), but the policy performs only: text"):
        run(text_to_image, FakePolicy(kinds=("text",)))
    with pytest.raises(ConfigError, match="no sampling for acts of kind 'image'"):
        rollout(FakePolicy(), text_to_image, tasks(), 2, samplings={"text": Sampling()}, seed=0, step=0)


# demonstrations


def test_a_demonstration_takes_its_acts_from_the_columns():
    image = Image.new("RGB", (4, 4), (255, 85, 128))
    rows = [Task(n, {"prompt": "p", "question": "q", "target": image, "solution": s}) for n, s in enumerate(["4", 5])]
    shown = encode_demonstrations(FakePolicy(), generate_and_answer, rows, {"image": "target", "answer": "solution"})
    assert [t.task.index for t in shown] == [0, 1]
    for trajectory, text in zip(shown, ("4", "5"), strict=True):
        drawing, said = trajectory.acts
        assert drawing.image is image and drawing.ids.tolist() == [7] * 4 and drawing.log_probs is None
        assert said.text == text and said.context is trajectory.task.question


def test_some_drawings_are_demonstrated_without_their_prompt():
    image = Image.new("RGB", (4, 4))
    rows = [Task(n, {"prompt": "p", "question": "q", "target": image, "solution": "4"}) for n in range(400)]

    def drop_prompt(**settings):
        policy, seen = FakePolicy(), {"text": [], "image": []}
        encode_targets = policy.encode_targets

        def remember(requests, targets):
            seen[requests[0].kind] += [request.drop_prompt for request in requests]
            return encode_targets(requests, targets)

        policy.encode_targets = remember
        encode_demonstrations(policy, generate_and_answer, rows, {"image": "target", "answer": "solution"}, **settings)
        return seen

    first = drop_prompt(prompt_dropout=0.25, seed=1, step=2)
    assert 0.15 < sum(first["image"]) / 400 < 0.35 and not any(first["text"])
    assert drop_prompt(prompt_dropout=0.25, seed=1, step=2) == first
    assert drop_prompt(prompt_dropout=0.25, seed=1, step=3) != first != drop_prompt(prompt_dropout=0.25, seed=2, step=2)
    assert not any(drop_prompt()["image"])


def test_edits_are_demonstrated_without_their_prompt_their_source_or_both():
    image, withheld = Image.new("RGB", (4, 4)), []
    rows = [Task(n, {"instruction": "i", "image": image, "edited": image}) for n in range(400)]
    policy = FakePolicy()
    encode_targets = policy.encode_targets

    def remember(requests, targets):
        withheld.extend((request.drop_prompt, request.drop_source_image) for request in requests)
        return encode_targets(requests, targets)

    policy.encode_targets = remember
    edit = built_in_scenarios()["edit"]
    encode_demonstrations(
        policy, edit, rows, {"edit": "edited"}, prompt_dropout=0.1, source_dropout=0.2, joint_dropout=0.4
    )
    shares = {way: withheld.count(way) / 400 for way in [(True, False), (False, True), (True, True), (False, False)]}
    for way, share in {(True, False): 0.1, (False, True): 0.2, (True, True): 0.4, (False, False): 0.3}.items():
        assert abs(shares[way] - share) < 0.07


def test_later_acts_of_a_demonstration_see_the_earlier_ones():
    image = Image.new("RGB", (4, 4))
    rows = [Task(0, {"prompt": "p", "target": image, "text": "better"})]
    (shown,) = encode_demonstrations(
        FakePolicy(), reflect, rows, {"draft": "target", "critique": "text", "revision": "target"}
    )
    assert shown.acts[1].context.messages[1].parts[0].image is image
    assert shown.acts[2].context.text == "p\nbetter"


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ({"anser": "answer"}, ConfigError, r"names the act 'anser'.*Did you mean 'answer'"),
        ({}, ConfigError, r"performs 'answer', but data.targets names no column for it"),
        ({"answer": "solution"}, DataError, r"Row 10 has no column 'solution'"),
        ({"answer": "nothing"}, DataError, r"Row 10, column 'nothing', contains None, which is not text for 'answer'"),
    ],
)
def test_demonstrations_that_cannot_be(targets, error, message):
    rows = [Task(10, {"question": "q", "answer": "4", "nothing": None})]
    with pytest.raises(error, match=message):
        encode_demonstrations(FakePolicy(), answer, rows, targets)


def test_a_drawing_is_demonstrated_by_a_picture():
    with pytest.raises(DataError, match="'prompt', contains 'p0', which is not an image for 'image'"):
        encode_demonstrations(FakePolicy(), text_to_image, tasks(), {"image": "prompt"})


def test_nothing_of_a_demonstration_is_only_counted():
    rows = [Task(5, {"prompt": "p", "target": Image.new("RGB", (4, 4)), "text": "x" * 100})]
    targets = {"draft": "target", "critique": "text", "revision": "target"}
    with pytest.raises(ContextError, match="characters"):
        encode_demonstrations(FakePolicy(max_context=50), reflect, rows, targets)

    def program(task):
        yield GenerateText(task.question)
        raise ValueError("odd")

    with pytest.raises(ConfigError, match=r"'custom' raised ValueError: odd \(test_rollout.py:\d+\) on row 10"):
        encode_demonstrations(FakePolicy(), custom(program), tasks(), {"answer": "answer"})


def test_sys_exit_in_a_scenario_loses_its_trajectory_and_not_the_run():
    def leaves(task):
        try:
            yield GenerateText(task.question)
            if task.generation_index == 1:
                raise SystemExit(0)
            yield GenerateText(task.question, name="other")
        finally:
            if task.generation_index == 2:
                raise SystemExit(0)

    (group,) = run(custom(leaves, {"answer": "text", "other": "text"}), count=1)
    assert group.valid_indices == [0] and "SystemExit" in group.trajectories[1].failure.message
