"""The studio without its page: tasks, equal noise, scores, and what goes wrong."""

import threading
from pathlib import Path

import pytest
from PIL import Image

from motet.core.errors import ConfigError, ContextError, DataError, RewardError
from motet.core.protocols import Request
from motet.core.trajectory import ImageAct, TextAct
from motet.policies import load_policy
from motet.shapes.render import render
from motet.shapes.scene import Scene, ShapeInstance
from motet.studio.background import Report, while_running
from motet.studio.scoring import ImageScorers
from motet.studio.session import StudioRequest, StudioSession, StudioSettings
from motet.testing import FakePolicy
from tests.tiny_policy import TinyPolicy

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def session():
    base, trained = (load_policy(CHECKPOINTS / name) for name in ("words_janus", "shapes_janus"))
    return StudioSession({"base": base, "trained": trained})


def last(session, *arguments, **options):
    *_, outputs = session.run(StudioRequest(*arguments, **options))
    return outputs


def test_base_and_trained_generate_and_are_scored(session):
    settings = StudioSettings(seed=3, generations=2, reward="shapes")
    base, trained = last(session, "text_to_image", {"prompt": "a red circle"}, settings)
    assert (base.label, trained.label) == ("base", "trained")
    assert list(trained.images) == ["trained 1", "trained 2"]
    assert (base.mean_score, trained.mean_score) == (0.0, 1.0)
    assert [one.final_score for one in trained.generations] == [1.0, 1.0]


def test_policies_get_the_same_noise_which_depends_on_the_seed():
    same = StudioSession({"one": TinyPolicy(), "other": TinyPolicy()})
    shown = []
    for seed in (0, 1):
        one, other = last(same, "text_to_image", {"prompt": "x"}, StudioSettings(seed=seed, generations=3))
        shown.append([image.tobytes() for image in one.images.values()])
        assert shown[-1] == [image.tobytes() for image in other.images.values()]
    assert shown[0] != shown[1] and len(set(shown[0])) > 1


def all_results(work):
    """Like `while_running`, but without a second thread: it yields every report, however busy the machine is."""
    report = Report()
    result = work(report)
    while not report.results.empty():
        yield report.results.get()[1]
    yield result


def test_an_answer_grows_while_it_is_generated(session, monkeypatch):
    monkeypatch.setattr("motet.studio.session.while_running", all_results)
    columns = {"question": "what is in the picture?", "image": Image.new("RGB", (32, 32), "white")}
    steps = list(session.run(StudioRequest("answer", columns, StudioSettings(generations=1, max_tokens=24))))
    (answer,) = steps[-1][0].generations[0].acts
    assert isinstance(answer.act, TextAct) and answer.score is None
    partial = [outputs[0].partial[0] for outputs in steps if outputs and outputs[0].partial]
    assert len(set(partial)) > 2 and all(answer.act.text.startswith(text.rstrip("�")) for text in partial)


def test_reflection_shows_its_acts_in_order_with_scores_of_images(session):
    settings = StudioSettings(generations=1, max_tokens=8, reward="shapes")
    _, trained = last(session, "reflect", {"prompt": "a red circle"}, settings)
    acts = trained.generations[0].acts
    assert [one.act.name for one in acts] == ["draft", "critique", "revision"]
    assert [one.score is not None for one in acts] == [isinstance(one.act, ImageAct) for one in acts]
    assert list(trained.images) == ["trained 1 draft", "trained 1 revision"]
    assert trained.mean_score == acts[-1].score


def test_an_edit_is_scored_by_what_it_should_show():
    session = StudioSession({"fake": FakePolicy()})
    white = Image.new("RGB", (32, 32), "white")
    columns, settings = {"image": white, "instruction": "a red circle"}, StudioSettings(generations=1, reward="shapes")
    assert last(session, "edit", columns, settings)[0].mean_score is None
    assert last(session, "edit", columns, settings, score_prompt="a red circle")[0].mean_score is not None


def test_temperature_and_guidance_reach_the_sampling(session):
    policy = session.policies["trained"]
    samplings = StudioSettings(image_temperature=0.5, text_temperature=0.2, guidance_scale=3.0).samplings(policy)
    assert (samplings["image"].temperature, samplings["image"].guidance_scale) == (0.5, 3.0)
    assert (samplings["image"].guidance, samplings["text"].guidance) == ("guided", "none")
    assert samplings["text"].temperature == 0.2
    assert StudioSettings().samplings(policy)["image"].guidance == "none"


def test_only_what_a_policy_can_do_is_offered():
    class Writer(FakePolicy):
        kinds = frozenset({"text"})

    writer = StudioSession({"writer": Writer()})
    assert list(writer.tasks) == ["ask"] and not writer.makes_images and writer.makes_texts
    both = StudioSession({"writer": Writer(), "both": FakePolicy()})
    assert set(both.tasks) == {"generate", "ask", "edit", "reflect"}
    assert [output.label for output in last(both, "text_to_image", {"prompt": "x"})] == ["both"]
    with pytest.raises(ConfigError, match="No policy can perform the scenario 'edit'"):
        last(writer, "edit", {"image": Image.new("RGB", (8, 8)), "instruction": "x"})


def test_a_denoiser_is_asked_to_edit_only_if_it_can(monkeypatch):
    unified = load_policy(CHECKPOINTS / "shapes_unified")
    able = StudioSession({"unified": unified})
    assert "edit" in able.tasks and able.image_temperature == 0.0
    monkeypatch.setattr(unified.image_policy.generator.denoiser, "edits", False)
    unable = StudioSession({"unified": unified})
    assert "edit" not in unable.tasks and unable.tasks["reflect"] == ["think_then_generate", "refine_prompt"]


def test_an_error_of_one_policy_leaves_the_other_its_output():
    session = StudioSession({"tiny": TinyPolicy(), "fake": FakePolicy()})  # TinyPolicy has no guidance
    tiny, fake = last(session, "text_to_image", {"prompt": "x"}, StudioSettings(guidance_scale=2.0))
    assert isinstance(tiny.problem, ConfigError) and "guidance" in tiny.problem.problem and not tiny.generations
    assert fake.problem is None and len(fake.images) == 4


def test_a_prompt_that_is_too_long_is_a_problem(session):
    _, trained = last(session, "text_to_image", {"prompt": "a red circle " * 400})
    assert isinstance(trained.problem, ContextError)


def test_an_error_of_a_reward_leaves_the_images(monkeypatch):
    session = StudioSession({"fake": FakePolicy()})

    def fail(*_):
        raise RewardError("It broke.", fix="mend it.")

    monkeypatch.setattr(session.scorers, "score", fail)
    settings = StudioSettings(generations=1, reward="shapes")
    (fake,) = last(session, "text_to_image", {"prompt": "a cross"}, settings)
    assert fake.problem.problem == "It broke." and len(fake.images) == 1 and fake.mean_score is None


@pytest.mark.parametrize(
    ("columns", "problem"), [({"prompt": " \n"}, "prompt"), ({"prompt": "x", "image": None}, "image")]
)
def test_what_is_missing_is_said(session, columns, problem):
    with pytest.raises(DataError, match=f"The {problem} is missing"):
        last(session, "text_to_image", columns)


@pytest.mark.parametrize(
    "setting",
    [{"seed": -1}, {"seed": 2**32}, {"seed": None}, {"seed": 1.5}, {"generations": 0}, {"generations": 1000},
     {"image_temperature": -1}, {"text_temperature": float("nan")}, {"guidance_scale": 0}, {"max_tokens": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_rejected(setting):
    with pytest.raises(ConfigError, match=next(iter(setting)).replace("_", " ").capitalize()):
        StudioSettings.read(None, **setting)


def test_settings_are_read_from_a_form():
    values = {"seed": 3, "image_temperature": 1, "guidance_scale": 2}
    assert StudioSettings.read("shapes", **values) == StudioSettings(3, guidance_scale=2.0, reward="shapes")


def test_the_rewards_that_score_an_image_by_its_prompt_are_found():
    scorers = ImageScorers()
    assert {"shapes", "jpeg_compressibility"} <= set(scorers.names)
    assert not {"exact_answer", "format", "psnr", "clip_score"} & set(scorers.names)
    assert scorers.is_binary["shapes"] and not scorers.is_binary["jpeg_compressibility"]
    assert scorers.score("shapes", "a cat", [Image.new("RGB", (32, 32))]) == [None]


def test_prompts_of_the_large_world_are_scored():
    shown = [render(Scene(4, (ShapeInstance(0, 0, "pink", "star", size),)), 64) for size in ("small", "large")]
    assert ImageScorers(world="large").score("shapes", "a small pink star", shown) == [1.0, 0.0]
    assert ImageScorers().score("shapes", "a small pink star", shown) == [None, None]
    with pytest.raises(ConfigError, match="--world='huge'"):
        ImageScorers(world="huge")


def test_the_chosen_reward_comes_first_with_its_options():
    scorers = ImageScorers("shapes", {"partial": 1.0})
    assert scorers.names[0] == "shapes" and scorers.names.count("shapes") == 1
    with pytest.raises(ConfigError, match="path of a CLIP model"):
        ImageScorers("clip_score")
    with pytest.raises(RewardError, match="needs column 'answer'"):
        ImageScorers("exact_answer")


def test_work_ends_when_nobody_waits_for_it():
    ended, go_on = threading.Event(), threading.Event()

    def work(report):
        try:
            report("first")
            go_on.wait(10)
            report("second")
        finally:
            ended.set()

    results = while_running(work)
    assert next(results) == "first"
    go_on.set()
    results.close()
    assert ended.is_set()


@pytest.mark.parametrize("checkpoint", ["shapes_janus", "shapes_unified"])  # image tokens, denoising steps
def test_a_generation_of_images_ends_when_nobody_waits_for_it(monkeypatch, checkpoint):
    session, finished = StudioSession({"one": load_policy(CHECKPOINTS / checkpoint)}), []
    monkeypatch.setattr(session, "_scored", lambda *_: finished.append(True))
    monkeypatch.setattr("motet.studio.background.SECONDS_WITHOUT_RESULT", 0.0)
    running = session.run(StudioRequest("text_to_image", {"prompt": "a red circle"}))
    assert next(running) is None  # nothing yet: time to see whether somebody still waits
    running.close()
    assert not finished
    monkeypatch.undo()
    assert len(last(session, "text_to_image", {"prompt": "a red circle"})[0].images) == 4


def test_noise_is_keyed_like_that_of_a_rollout():
    keys = []

    class Spy(FakePolicy):
        def act(self, requests: list[Request], sampling):
            keys.extend(request.key for request in requests)
            return super().act(requests, sampling)

    last(StudioSession({"spy": Spy()}), "text_to_image", {"prompt": "x"}, StudioSettings(seed=7, generations=2))
    assert keys == [(7, 0, 0, 0, 0), (7, 0, 0, 1, 0)]
