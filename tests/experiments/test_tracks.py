"""Several tracks in one run, together or alternating, each with its own tasks, rewards and advantages."""

import pytest

from motet.config import load_recipe, parse_recipe, to_yaml
from motet.core.errors import CheckpointError, ConfigError
from motet.scenarios import GenerateText, scenario
from motet.training.setup import setup_rl, setup_sft
from motet.training.sft import sft_batch
from tests.runs import REWARDS, WORLD, mapping, metrics, run_loop

DATA = {"source": "shapes", "options": dict(WORLD)}
TRACKS = {
    "draws": {
        "scenario": "text_to_image", "data": DATA, "prompts_per_step": 3,
        "rewards": [{"name": f"{REWARDS}reddish", "acts": ["image"]}],
    },
    "answers": {
        "scenario": "answer", "data": DATA, "prompts_per_step": 2,
        "rewards": [{"name": f"{REWARDS}spacious", "acts": ["answer"]}],
    },
}  # fmt: skip
ALONE = {"scenario": None, "data": None, "rewards": None, "tracks": TRACKS}


@scenario("stumbles", acts={"answer": "text"})
def stumbles(task):
    yield GenerateText(task.question, name="answer")
    raise ValueError("lost the thread")


def recipe(checkpoint, **run):
    content = mapping(checkpoint, **ALONE)
    content["run"] = {"steps": 4, "log_samples_every": 2, **run}
    return parse_recipe(content)


def test_every_step_runs_every_track(tiny_checkpoint, tmp_path):
    seen = run_loop(recipe(tiny_checkpoint), tmp_path / "run")
    for numbers in seen:
        assert numbers["draws/groups"] == 3 and numbers["answers/groups"] == 2
        assert "draws/rewards/reddish/mean" in numbers and "answers/rewards/spacious/mean" in numbers
        assert {"image/loss", "text/loss"} <= numbers.keys()
    names = {path.name for path in (tmp_path / "run" / "samples").iterdir()}
    assert names == {"step_000002_draws.png", "step_000002_answers.jsonl", "step_000004_draws.png",
                     "step_000004_answers.jsonl"}  # fmt: skip


def test_tracks_alternate(tiny_checkpoint, tmp_path):
    seen = run_loop(recipe(tiny_checkpoint, steps_per_track=2, steps=5), tmp_path / "run")
    assert ["draws/groups" in numbers for numbers in seen] == [True, True, False, False, True]
    assert ["answers/groups" in numbers for numbers in seen] == [False, False, True, True, False]
    session = setup_rl(recipe(tiny_checkpoint, steps_per_track=2, steps=5))
    session.load_data_state(
        {"draws": {"seed": 0, "size": None, "drawn": 9}, "answers": {"seed": 0, "size": None, "drawn": 4}}
    )
    assert [task.index for task in session.tracks[0].cursor.next(1)] == [9]


def test_a_failing_track_raises_in_its_first_step(tiny_checkpoint, tmp_path):
    content = mapping(tiny_checkpoint, **ALONE)
    content["tracks"] = {"draws": TRACKS["draws"], "answers": {**TRACKS["answers"], "scenario": f"{__file__}:stumbles"}}
    content["run"] = {"steps": 4, "steps_per_track": 1}
    with pytest.raises(ConfigError, match="All 4 trajectories of the first step failed"):
        run_loop(content, tmp_path / "run")


def test_a_run_with_tracks_resumes_bit_exactly(tiny_checkpoint, tmp_path):
    own = recipe(tiny_checkpoint, steps_per_track=1, steps=4)
    run_loop(own, tmp_path / "whole")
    run_loop(own, tmp_path / "parts", stop_after=1)
    run_loop(own, tmp_path / "parts")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_one_track_equals_a_run_without_tracks(tiny_checkpoint, tmp_path):
    """The first of several tracks uses the noise of a recipe without tracks."""
    alone = mapping(tiny_checkpoint, scenario="text_to_image", rewards=TRACKS["draws"]["rewards"])
    alone["run"] = {"steps": 2, "prompts_per_step": 3}
    content = mapping(tiny_checkpoint, **ALONE)
    content["tracks"] = {"draws": TRACKS["draws"]}
    content["run"] = {"steps": 2}
    one, other = run_loop(alone, tmp_path / "one"), run_loop(content, tmp_path / "other")
    assert [n["image/loss"] for n in one] == [n["image/loss"] for n in other]
    assert [n["reward"] for n in one] == [n["draws/reward"] for n in other]


def test_tracks_on_the_same_rows_do_not_share_noise(tiny_checkpoint, tmp_path):
    content = mapping(tiny_checkpoint, **ALONE)
    content["tracks"] = {"one": TRACKS["draws"], "two": TRACKS["draws"]}
    content["run"] = {"steps": 1}
    (numbers,) = run_loop(content, tmp_path / "run")
    assert numbers["one/rewards/reddish/mean"] != numbers["two/rewards/reddish/mean"]


def test_sft_targets_of_tracks_on_the_same_rows_do_not_share_noise(tiny_checkpoint, monkeypatch):
    shown = {"scenario": "text_to_image", "data": {**DATA, "targets": {"image": "target"}}, "prompts_per_step": 3}
    content = mapping(tiny_checkpoint, **ALONE, algorithm=None)
    content |= {"tracks": {"one": shown, "two": shown}, "run": {"steps": 1}}
    session, keys = setup_sft(parse_recipe(content)), []
    encode_targets = session.policy.encode_targets
    monkeypatch.setattr(
        session.policy,
        "encode_targets",
        lambda asked, targets: keys.append([r.key for r in asked]) or encode_targets(asked, targets),
    )
    sft_batch(session, 5)
    one, two = keys
    assert len(one) == 3 and all(key[:2] == (0, 5) and len(key) == 5 for key in one)  # as in a run without tracks
    assert two == [(0, 5, 1, *key[2:]) for key in one]


def test_checkpoints_of_other_tracks_are_rejected(tiny_checkpoint):
    session = setup_rl(recipe(tiny_checkpoint))
    with pytest.raises(CheckpointError, match=r"has the tracks \[''\], this run has \['answers', 'draws'\]"):
        session.load_data_state({"": {}})


def test_missing_keys_of_tracks_are_named(tiny_checkpoint):
    content = mapping(tiny_checkpoint, **ALONE)
    content["tracks"] = {"draws": {**TRACKS["draws"], "rewards": []}}
    content["run"] = {"steps": 1}
    with pytest.raises(ConfigError, match="The track 'draws' names no rewards"):
        setup_rl(parse_recipe(content))


def test_a_recipe_with_tracks_is_saved_and_loaded(tiny_checkpoint, tmp_path):
    own = recipe(tiny_checkpoint, steps_per_track=2)
    (tmp_path / "recipe.yaml").write_text(to_yaml(own))
    assert load_recipe(tmp_path / "recipe.yaml") == own
