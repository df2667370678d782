"""Whole runs of a tiny Janus: what they report, and that stopping and resuming changes nothing."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from motet.config import LoraConfig, parse_recipe
from motet.core.errors import CheckpointError, ConfigError
from motet.core.task import Task
from motet.policies import load_policy
from motet.policies.janus import JanusPolicy
from motet.report.run_dir import RunFolder
from motet.scenarios import GenerateImage, GenerateText, generate_and_answer, scenario
from motet.shapes.world import ShapesRows
from motet.training.checkpoint import restore, save_checkpoint
from motet.training.rollout import rollout
from motet.training.run_loop import Run
from motet.training.setup import build_rl_tracks, sampling_params, setup_rl, setup_sft, trained_act_kinds
from motet.training.sft import train_sft
from motet.training.signals import Interrupt
from motet.weights.locate import checkpoints, latest_checkpoint
from tests.runs import (
    REWARDS,
    WORLD,
    RecordingCallback,
    TrainableFakePolicy,
    mapping,
    metrics,
    motet_command,
    run_loop,
    save_tiny_janus,
    write_recipe,
)

CHANGES = {
    "rewards": [{"name": f"{REWARDS}slowly", "acts": ["image"]}, {"name": f"{REWARDS}spacious", "acts": ["answer"]}],
    "algorithm": {"beta": 0.05, "num_iterations": 2, "num_minibatches": 2},
    "optimizer": {"warmup_steps": 3},
    "run": {"steps": 4, "save_every": 1, "keep_checkpoints": 2},
}


@pytest.fixture(scope="module")
def undisturbed(tiny_checkpoint, tmp_path_factory):
    """A run of four steps with KL, two passes and two minibatches; its folder."""
    folder = tmp_path_factory.mktemp("loop") / "undisturbed"
    run_loop(mapping(tiny_checkpoint, **CHANGES), folder)
    return folder


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer and learner state, data order and numbers, to the bit."""
    last, its = latest_checkpoint(one / "checkpoints"), latest_checkpoint(other / "checkpoints")
    assert last is not None and its is not None and last.name == its.name
    names = sorted(path.name for path in last.glob("*.safetensors"))
    assert len(names) == 2 and "learner.safetensors" in names
    for name in names:
        tensors, theirs = load_file(last / name), load_file(its / name)
        assert tensors.keys() == theirs.keys()
        assert all(torch.equal(tensors[key], theirs[key]) for key in tensors), name
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (last, its)]
    assert [s | {"seconds": 0} for s in states[:1]] == [s | {"seconds": 0} for s in states[1:]]
    assert metrics(one) == metrics(other)


def test_two_steps_and_two_more_are_four(undisturbed, tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, **CHANGES)
    assert len(run_loop(recipe, tmp_path / "run", stop_after=2)) == 2
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").name == "step_000002"
    assert len(run_loop(recipe, tmp_path / "run")) == 2
    assert_same_run(undisturbed, tmp_path / "run")


def test_a_reference_that_moves_is_part_of_the_checkpoint(tiny_checkpoint, tmp_path):
    """Synced after every second optimizer step: a resumed run goes on as if it had never ended."""
    synced = {"reference_sync": {"every": 2, "alpha": 0.3}}
    changes = {**CHANGES, "algorithm": {"beta": 0.5, "num_minibatches": 2, **synced}, "run": {"steps": 3}}
    recipe = mapping(tiny_checkpoint, **changes)
    run_loop(recipe, tmp_path / "whole")
    run_loop(recipe, tmp_path / "parts", stop_after=1)
    saved = load_file(latest_checkpoint(tmp_path / "parts" / "checkpoints") / "learner.safetensors")
    start = load_policy(tiny_checkpoint).trainable()
    assert {key for key in saved if key.endswith("|reference")} == {f"{name}|reference" for name in start}
    for name, parameter in start.items():
        mixed = 0.7 * parameter.detach() + 0.3 * saved[f"{name}|weight"]
        torch.testing.assert_close(saved[f"{name}|reference"], mixed, rtol=0, atol=1e-6)
    run_loop(recipe, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    changes["algorithm"] = {"beta": 0.5, "num_minibatches": 2}
    run_loop(mapping(tiny_checkpoint, **changes), tmp_path / "fixed")
    assert (
        metrics(tmp_path / "fixed")[0] == metrics(tmp_path / "whole")[0]
    )  # the first rollout knows no other reference
    assert metrics(tmp_path / "fixed")[1]["image/kl"] > 1.3 * metrics(tmp_path / "whole")[1]["image/kl"]


def test_a_loaded_adapter_has_no_reference_that_could_move(tiny_checkpoint, tmp_path):
    pytest.importorskip("peft")
    policy = load_policy(tiny_checkpoint)
    policy.add_lora(LoraConfig(rank=2))
    policy.save(tmp_path / "adapter")
    recipe = mapping(tmp_path / "adapter", algorithm={"beta": 0.1, "reference_sync": {}})
    with pytest.raises(ConfigError, match=r"algorithm\.reference_sync mixes weights, and the checkpoint's adapter"):
        run_loop(recipe, tmp_path / "run")


def test_the_weights_of_a_run_move_and_its_reference_does_not(undisturbed, tiny_checkpoint):
    start, end = load_policy(tiny_checkpoint), load_policy(latest_checkpoint(undisturbed / "checkpoints"))
    trained = start.trainable()
    moved = [float((p - end.trainable()[name]).detach().abs().max()) for name, p in trained.items()]
    assert max(moved) > 1e-3
    frozen = [(n, p) for n, p in start.model.named_parameters() if n not in trained]
    ends = dict(end.model.named_parameters())
    assert frozen and all(torch.equal(p, ends[n]) for n, p in frozen)
    kl = [line["image/kl"] for line in metrics(undisturbed)]
    assert 0 < kl[0] < kl[-1]  # the first number already averages over optimizer steps that moved the weights


def test_metrics_hold_the_promised_numbers(undisturbed):
    lines = metrics(undisturbed, timed=True)
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    promised = {"reward", "rewards/slowly/mean", "rewards/slowly/std", "rewards/spacious/mean", "frac_reward_zero_std"}
    promised |= {
        f"{kind}/{n}" for kind in ("text", "image") for n in ("kl", "ratio", "ratio_max", "train_rollout_logprob_diff")
    }
    promised |= {f"{kind}/{n}" for kind in ("text", "image") for n in ("entropy", "clip_fraction", "loss")}
    promised |= {"completion_length/mean", "completion_length/max", "frac_truncated", "images_per_second", "failures"}
    promised |= {f"time/{phase}" for phase in ("data", "rollout", "rewards", "learn")} | {"step_time", "seconds"}
    promised |= {"grad_norm", "learning_rate", "loss", "old_log_probs_recomputed"}
    for line in lines:
        assert promised <= line.keys()
        assert all(isinstance(value, int | float) for value in line.values())
        phases = sum(value for key, value in line.items() if key.startswith("time/"))
        assert phases <= line["step_time"] <= phases + 0.5
        assert (
            line["text/train_rollout_logprob_diff_max"] < 1e-4 and line["image/train_rollout_logprob_diff_max"] < 1e-4
        )
    first = lines[0]
    assert first["reward"] == pytest.approx(first["rewards/slowly/mean"] + first["rewards/spacious/mean"], abs=1e-5)
    assert first["text/entropy"] > 0 and first["completion_length/max"] == 8
    rates = [line["learning_rate"] for line in lines]  # a step's mean over its four updates, three of them warming up
    assert rates == pytest.approx([0.003 * (1 / 4 + 2 / 4 + 3 / 4 + 1) / 4, 0.003, 0.003, 0.003], rel=1e-4)


def test_samples_and_checkpoints_of_a_run(undisturbed, tiny_checkpoint):
    assert [path.name for path in checkpoints(undisturbed / "checkpoints")] == ["step_000003", "step_000004"]
    assert sorted(path.name for path in (undisturbed / "samples").iterdir()) == ["step_000003.jsonl", "step_000003.png"]
    lines = [json.loads(line) for line in (undisturbed / "samples" / "step_000003.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and lines[0].keys() == {"row", "generation", "act", "reward", "prompt", "text"}
    policy = JanusPolicy.__name__
    assert type(load_policy(latest_checkpoint(undisturbed / "checkpoints"))).__name__ == policy


def test_samples_do_not_depend_on_the_batch(tiny_checkpoint):
    policy = load_policy(tiny_checkpoint)
    rows = [Task(n, ShapesRows("train", 0, WORLD).row(n)) for n in range(4)]
    samplings = sampling_params(parse_recipe(mapping(tiny_checkpoint)))

    def drawn(batches):
        groups = [
            g
            for batch in batches
            for g in rollout(policy, generate_and_answer, batch, 2, samplings=samplings, seed=0, step=5)
        ]
        return {
            (t.task.index, t.task.generation_index, act.name): act.ids.tolist()
            for group in groups for t in group.trajectories for act in t.acts
        }  # fmt: skip

    together = drawn([rows])
    assert len(together) == 16 and len({str(ids) for ids in together.values()}) == 16
    assert together == drawn([rows[::-1]]) == drawn([rows[:1], rows[1:]])


# --- interruptions


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_undisturbed_numbers(undisturbed, tiny_checkpoint, tmp_path, capsys):
    """A real SIGINT to a real process; the printed command finishes the run."""
    recipe, folder = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **CHANGES), tmp_path / "my run"
    command = [sys.executable, "-m", "motet", "train", str(recipe), "run.threads=1", "--output", str(folder)]
    environment = os.environ | {"MOTET_TEST_SLEEP": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        while not (folder / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Finishing this step and saving" in err
    played = len(metrics(folder))
    assert 0 < played < 4 and f"Saved after step {played}. Resume with: motet train" in out
    assert latest_checkpoint(folder / "checkpoints").name == f"step_{played:06d}"
    again = shlex.split(out.rpartition("Resume with: ")[2].strip().splitlines()[0])
    answer = motet_command(capsys, *again[1:])
    assert answer.code == 0, answer.err
    assert "train 4/4" in answer.out and "Trained 4 steps" in answer.out
    assert_same_run(undisturbed, folder)
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_the_first_interruption_asks_and_the_second_stops():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)  # asks again, no more
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_nothing_is_caught():
    seen = []

    def inside():
        with Interrupt() as interrupt:
            seen.append(interrupt.asked)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False]


def in_a_child(work) -> int:
    """Run in a forked process, which has torch already; how it ended, as `os.waitpid` tells it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_process_killed_while_it_saves_leaves_a_run_that_resumes(undisturbed, tiny_checkpoint, tmp_path):
    folder, recipe = tmp_path / "run", mapping(tiny_checkpoint, **CHANGES)

    def die_in_the_second_save():
        saved, original = [], JanusPolicy.save

        def save(policy, path):
            original(policy, path)
            saved.append(path)
            if len(saved) == 2:
                (path / "learner.safetensors").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)

        JanusPolicy.save = save
        run_loop(recipe, folder)

    assert os.WTERMSIG(in_a_child(die_in_the_second_save)) == signal.SIGKILL
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == [".partial_step_000002", "step_000001"] and len(metrics(folder)) == 2
    run_loop(recipe, folder)
    assert_same_run(undisturbed, folder)
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_torn_line_of_metrics_is_forgotten(undisturbed, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")  # back to the end of its third step
    shutil.rmtree(folder / "checkpoints" / "step_000004")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:3]) + '{"step": 3, "rew')
    assert len(run_loop(mapping(tiny_checkpoint, **CHANGES), folder)) == 1
    assert_same_run(undisturbed, folder)


def test_a_schedule_is_as_long_as_the_optimizer_steps(tiny_checkpoint):
    recipe = parse_recipe(mapping(tiny_checkpoint, **CHANGES))
    assert setup_rl(recipe).optimizer.total_steps == 4 * 2 * 2


# --- checkpoints


def test_float32_weights_of_a_bfloat16_checkpoint_survive_a_resume(tmp_path):
    """`save_pretrained` names one type for all weights, `from_pretrained` rounds to it; a resumed run must not."""
    start = save_tiny_janus(tmp_path / "half", dtype=torch.bfloat16)
    train = ["language_model", "lm_head", "generation_head", "generation_embeddings", "generation_aligner"]
    recipe = mapping(start, policy={"train": train, "dtype": "bfloat16"}, run={"steps": 2, "prompts_per_step": 1})
    run_loop(recipe, tmp_path / "whole")
    run_loop(recipe, tmp_path / "halves", stop_after=1)
    run_loop(recipe, tmp_path / "halves")
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    weights = load_file(latest_checkpoint(tmp_path / "whole" / "checkpoints") / "learner.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}
    assert all(line["old_log_probs_recomputed"] == 1 for line in metrics(tmp_path / "whole"))


def test_adapters_resume_too(tiny_checkpoint, tmp_path):
    """With LoRA the reference is the model without its adapter, and a checkpoint is the adapter."""
    pytest.importorskip("peft")
    changes = {"policy": {"lora": {"rank": 2}}, "algorithm": {"beta": 0.1}, "run": {"steps": 2, "prompts_per_step": 1}}
    recipe = mapping(tiny_checkpoint, **changes)
    run_loop(recipe, tmp_path / "whole")
    run_loop(recipe, tmp_path / "halves", stop_after=1)
    run_loop(recipe, tmp_path / "halves")
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    first, second = metrics(tmp_path / "whole")
    assert first["image/kl"] == 0 < second["image/kl"]
    assert (latest_checkpoint(tmp_path / "whole" / "checkpoints") / "adapter_model.safetensors").is_file()


def test_checkpoints_are_found_by_number_and_kept_by_count(tiny_checkpoint, tmp_path):
    session = setup_rl(parse_recipe(mapping(tiny_checkpoint)))
    from motet.training.checkpoint import Progress

    (tmp_path / "step_final").mkdir()  # a user's own
    (tmp_path / "step_9999999").mkdir()  # one that is not whole
    for step in (999_999, 1_000_000):
        progress = Progress(step, 1.0, session.data_state())
        save_checkpoint(tmp_path, session.policy, session.optimizer, progress, keep=1)
        assert latest_checkpoint(tmp_path).name == f"step_{step}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1000000", "step_9999999", "step_final"]
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_what_cannot_be_resumed_is_refused(undisturbed, tiny_checkpoint, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    recipe = mapping(tiny_checkpoint, **CHANGES)
    with pytest.raises(CheckpointError, match="other trained parts"):
        run_loop(recipe | {"policy": {"path": str(tiny_checkpoint), "train": ["lm_head"]}}, tmp_path / "run")
    with pytest.raises(CheckpointError, match="seed 0, this run's has 7"):
        run_loop(recipe | {"run": {**recipe["run"], "seed": 7}}, tmp_path / "run")
    for broken in (tmp_path / "run" / "checkpoints").glob("*/learner.safetensors"):
        broken.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"step_000004' cannot be resumed"):
        run_loop(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("motet.policies.janus.policy.JanusPolicy.save", OSError(28, "No space left on device")),
        ("motet.training.checkpoint.save_tensors", SafetensorError("I/O error: No space left on device (os error 28)")),
    ],
)
def test_a_full_disk_is_one_line(tiny_checkpoint, tmp_path, monkeypatch, place, error):
    def save(*_):
        raise error

    monkeypatch.setattr(place, save)
    with pytest.raises(CheckpointError, match=r"step_000001' cannot be written: No space left on device"):
        run_loop(mapping(tiny_checkpoint, run={"steps": 1, "prompts_per_step": 1}), tmp_path / "run")


# --- supervised runs

TAUGHT = {
    "rewards": None,
    "algorithm": None,
    "data": {"targets": {"image": "target", "answer": "solution"}},
    "sampling": {"text": {"max_tokens": 60}},
    "optimizer": {"schedule": "cosine", "warmup_steps": 1},
    "run": {"steps": 6, "save_every": 4},
}


def teach(recipe, folder, stop_after=None):
    session = setup_sft(recipe)
    run_folder, interrupt = RunFolder(folder, resume=folder.exists()), Interrupt()
    notes = RecordingCallback(interrupt, stop_after)
    with run_folder.held():
        run_folder.create("")
        run = Run(session, run_folder, notes, interrupt, lambda: {"eval/draw": float(session.policy.version)})
        train_sft(session, run)
    return notes.seen


def test_supervision_learns_and_resumes(tiny_checkpoint, tmp_path):
    recipe = parse_recipe(mapping(tiny_checkpoint, **TAUGHT, eval={"suite": "shapes", "every": 3}))
    seen = teach(recipe, tmp_path / "whole")
    assert len(seen) == 6 and seen[-1]["text/nll"] < seen[0]["text/nll"] - 0.1
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.1
    assert [numbers.get("eval/draw") for numbers in seen] == [None, None, 3.0, None, None, 6.0]
    assert seen[-1]["learning_rate"] < 0.001 < seen[1]["learning_rate"]
    assert {"time/data", "time/learn", "seconds", "loss", "grad_norm"} <= seen[0].keys()
    for stop_after in (2, 5):  # neither is a multiple of save_every: asking for the end saves
        teach(recipe, tmp_path / "parts", stop_after)
        assert latest_checkpoint(tmp_path / "parts" / "checkpoints").name == f"step_{stop_after:06d}"
    teach(recipe, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_supervision_drops_prompts_of_drawings(tiny_checkpoint, tmp_path, monkeypatch):
    drop_prompt, encode_targets = [], JanusPolicy.encode_targets

    def remember(self, requests, targets):
        drop_prompt.extend((request.kind, request.key[:2]) for request in requests if request.drop_prompt)
        return encode_targets(self, requests, targets)

    monkeypatch.setattr(JanusPolicy, "encode_targets", remember)
    changes = TAUGHT | {"sft": {"prompt_dropout": 0.9}, "run": {"steps": 2, "seed": 5, "prompts_per_step": 8}}
    teach(parse_recipe(mapping(tiny_checkpoint, **changes)), tmp_path / "run")
    assert set(drop_prompt) == {("image", (5, 0)), ("image", (5, 1))}
    for name in ("prompt_dropout", "source_dropout", "joint_dropout"):
        with pytest.raises(ConfigError, match=r"sft has no effect in `motet train`"):
            setup_rl(parse_recipe(mapping(tiny_checkpoint, sft={name: 0.5})))
    with pytest.raises(ConfigError, match=r"source_dropout=0\.5 drops source images from denoising"):
        setup_sft(parse_recipe(mapping(tiny_checkpoint, **TAUGHT | {"sft": {"source_dropout": 0.5}})))


def test_supervision_leaves_out_kinds_of_weight_zero(tiny_checkpoint, tmp_path):
    def taught(weights, name):
        per_kind = {kind: {"weight": weight} for kind, weight in weights.items()}
        changes = TAUGHT | {"algorithm": {"per_kind": per_kind}}
        teach(parse_recipe(mapping(tiny_checkpoint, **changes)), tmp_path / name, stop_after=1)
        return metrics(tmp_path / name)[0]

    text = taught({"image": 0.0}, "text")
    assert "text/nll" in text and "image/nll" not in text
    with pytest.raises(ConfigError, match=r"all acts of the step, image, text, the weight 0"):
        taught({"image": 0.0, "text": 0.0}, "none")


def test_frozen_acts_are_not_taught(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, **TAUGHT) | {"scenario": f"{__file__}:shown"}
    seen = teach(parse_recipe(recipe), tmp_path / "run", stop_after=1)
    assert "text/nll" in seen[0] and "image/nll" not in seen[0]


# --- failures are data


@scenario("clumsy", acts={"image": "image"}, columns=("prompt",))
def clumsy(task):
    if task.generation_index == 1:
        raise KeyError("lost")
    yield GenerateImage(task.prompt)


@scenario("shown", acts={"image": "image", "answer": "text"}, columns=("prompt", "question"), untrained=("image",))
def shown(task):
    yield GenerateImage(task.prompt, name="image", trained=False), GenerateText(task.question, name="answer")


@scenario("hopeless", acts={"image": "image"}, columns=("prompt",))
def hopeless(task):
    yield GenerateImage(task.prompt)
    raise KeyError("lost")


def failing(tiny_checkpoint, name):
    reward = [{"name": f"{REWARDS}reddish"}]
    return mapping(tiny_checkpoint, rewards=reward, run={"steps": 2}) | {"scenario": f"{__file__}:{name}"}


@pytest.mark.parametrize("steady", ["image", "answer"])
def test_a_step_whose_advantages_are_those_of_frozen_acts_is_one_of_the_run(tiny_checkpoint, tmp_path, steady):
    """The image head trains: answers are reported, and teach nothing, whatever they are worth."""
    paid = {"image": "reddish", "answer": "spacious"} | {steady: "flat"}
    rewards = [{"name": f"{REWARDS}{name}", "acts": [act]} for act, name in paid.items()]
    changes = {"policy": {"train": ["generation_head"]}, "rewards": rewards, "run": {"steps": 2, "save_every": 1}}
    recipe = mapping(tiny_checkpoint, **changes)
    lines = run_loop(recipe, tmp_path / "whole")
    assert {line["grad_norm"] > 0 for line in lines} == {steady == "answer"}
    for act, kind in (("image", "image"), ("answer", "text")):
        assert all((f"{kind}/ratio" in line) == (act != steady or act == "image") for line in lines)
    run_loop(recipe, tmp_path / "halves", stop_after=1)
    run_loop(recipe, tmp_path / "halves")
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_a_run_none_of_whose_acts_anything_trained_makes_is_refused(tiny_checkpoint, tmp_path):
    answers = {
        "scenario": "answer",
        "rewards": [{"name": f"{REWARDS}spacious"}],
        "algorithm": {"advantage_assignment": "joint"},
    }
    recipe = mapping(tiny_checkpoint, policy={"train": ["generation_head"]}, **answers)
    with pytest.raises(ConfigError, match=r"has a gradient from the acts of this step \(text\)"):
        run_loop(recipe, tmp_path / "run")


def test_the_kinds_that_a_run_may_train(tiny_checkpoint):
    @scenario("two", acts={"thought": "text", "image": "image"}, untrained=("thought",))
    def two(task):
        yield GenerateImage(task.prompt)

    tracks = [replace(track, scenario=two) for track in build_rl_tracks(parse_recipe(mapping(tiny_checkpoint)))]
    assert trained_act_kinds(tracks, TrainableFakePolicy(kinds=("text", "denoising"))) == {"denoising"}
    assert trained_act_kinds(tracks, TrainableFakePolicy(kinds=("text", "image", "denoising"))) == {"image"}
    assert trained_act_kinds(tracks, TrainableFakePolicy(kinds=("text",))) == set()


def test_a_resumed_run_knows_that_it_has_learnt(undisturbed, tiny_checkpoint):
    session = setup_rl(parse_recipe(mapping(tiny_checkpoint, **CHANGES)))
    assert not session.optimizer.received_gradient
    restore(latest_checkpoint(undisturbed / "checkpoints"), session.policy, session.optimizer)
    assert session.optimizer.received_gradient


def test_a_failed_trajectory_is_counted_and_told(tiny_checkpoint, tmp_path):
    recipe = failing(tiny_checkpoint, "clumsy")
    recipe["algorithm"] = {"num_generations": 3}
    seen = run_loop(recipe, tmp_path / "run")
    assert [numbers["failures"] for numbers in seen] == [2.0, 2.0] and seen[0]["dropped/scenario"] == 2.0
    lines = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [(line["step"], line["generation"], line["where"]) for line in lines] == [
        (step, 1, "scenario") for step in (0, 0, 1, 1)
    ]
    assert "KeyError: 'lost' (test_trainer.py:" in lines[0]["message"]


def test_a_later_step_in_which_all_fail_is_no_first_step(tiny_checkpoint, tmp_path):
    """Not even right after a resume."""
    recipe = failing(tiny_checkpoint, "hopeless")
    steps = recipe["run"]["steps"]
    recipe["run"]["save_every"] = 1
    run_loop({**recipe, "scenario": "generate_and_answer"}, tmp_path / "run", stop_after=1)
    seen = run_loop(recipe, tmp_path / "run")
    assert len(seen) == steps - 1 and all(numbers["skipped"] == 1.0 for numbers in seen)


def test_when_all_of_the_first_step_fail_the_run_stops(tiny_checkpoint, tmp_path):
    with pytest.raises(
        ConfigError, match=r"All 4 trajectories of the first step failed, .* scenario: KeyError: 'lost'"
    ):
        run_loop(failing(tiny_checkpoint, "hopeless"), tmp_path / "run")


# --- it learns


@pytest.mark.slow
def test_a_tiny_janus_learns_to_draw_red(tiny_checkpoint, tmp_path):
    """From random weights, under the loop itself: red in the corner of the drawings, and letters in the texts."""
    recipe = mapping(
        tiny_checkpoint,
        policy={"train": ["language_model", "lm_head", "generation_head"]},
        algorithm={"num_generations": 32},
        optimizer={"learning_rate": 0.02},
        run={"steps": 25, "prompts_per_step": 1},
    )
    seen = run_loop(recipe, tmp_path / "run")
    for name, gain in (("reddish", 0.08), ("spacious", 0.35)):  # three seeds gained 0.15 and 0.48, or more
        curve = [numbers[f"rewards/{name}/mean"] for numbers in seen]
        first, last = sum(curve[:3]) / 3, sum(curve[-3:]) / 3
        assert last > first + gain, (name, curve)
