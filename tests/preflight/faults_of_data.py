"""Planted faults of rows, rewards and what a run writes."""

import errno
import os
import shutil
from pathlib import Path

from PIL import Image

from motet.preflight.checks.weights import checkpoint_bytes
from motet.report.run_dir import RunFolder
from motet.training.checkpoint import Progress, restore, save_checkpoint
from tests.preflight.planting import ROWS, fault
from tests.runs import REWARDS

OWN = f"{Path(__file__).parent / 'wrong_rewards.py'}:"


def reward(name: str, **settings) -> list[dict]:
    """A reward of answers, beside one of images."""
    path = name if ":" in name or name == "exact_answer" else f"{REWARDS}{name}"
    return [{"name": f"{REWARDS}reddish", "acts": ["image"]}, {"name": path, "acts": ["answer"], **settings}]


@fault("a reward that is always NaN", "rewards", "stopped")
def nan_reward(world):
    return world.check(world.fresh(rewards=reward("undefined")))


@fault("a reward that is always infinite", "rewards", "stopped")
def infinite_reward(world):
    return world.check(world.fresh(rewards=reward(f"{OWN}infinite")))


@fault("a reward that is NaN for some completions", "rewards_finite", "flagged")
def sometimes_nan(world):
    return world.check(world.fresh(rewards=reward(f"{OWN}sometimes_nan")))


@fault("a constant reward", "rewards_constant", "flagged")
def constant(world):
    return world.check(world.fresh(rewards=reward("flat")))


@fault("a reward that is 0 for everything", "rewards_constant", "flagged")
def always_zero(world):
    return world.check(world.fresh(rewards=reward("worth", options={"value": 0.0})))


@fault("a reward of the wrong sign", "rewards_sign", "stopped")
def wrong_sign(world):
    return world.check(world.fresh(rewards=reward("exact_answer", weight=-1.0)))


@fault("a distance as a reward", "rewards_sign", "stopped")
def distance(world):
    return world.check(world.answers(ROWS, rewards=[{"name": f"{OWN}distance"}]))


@fault("a reward that raises", "rewards", "stopped")
def raises(world):
    return world.check(world.fresh(rewards=reward("broken")))


@fault("a reward that returns too few values", "rewards", "stopped")
def too_few(world):
    return world.check(world.fresh(rewards=reward("too_few")))


@fault("a reward that hangs", "rewards", "stopped")
def hangs(world):
    limit = {"name": "raise", "timeout": 0.2}
    return world.check(world.fresh(rewards=reward(f"{OWN}hangs", on_failure=limit)))


@fault("questions and answers in each other's columns", "data_swapped", "flagged")
def swapped(world):
    return world.check(world.answers(ROWS, {"columns": {"question": "answer", "answer": "question"}}))


@fault("one column as both question and answer", "data_swapped", "stopped")
def same_column(world):
    rows = [{"question": row["question"], "answer": row["question"]} for row in ROWS]
    return world.check(world.answers(rows))


@fault("a gold answer missing in one row", "data_columns", "flagged")
def missing_in_one(world):
    return world.check(world.answers([*ROWS[:5], {"question": "what is 5 plus 5?"}, *ROWS[6:]]))


@fault("a column missing in all rows", "RewardError", "stopped", "setup")
def missing_column(world):
    world.answers([{"question": row["question"]} for row in ROWS])


@fault("a truncated image", "data_readable", "stopped")
def truncated_image(world):
    picture = world.folder / "one.png"
    Image.effect_noise((64, 64), 50.0).save(picture)
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 2])
    return world.check(world.answers([*ROWS[:-1], {**ROWS[-1], "image": "one.png"}]))


@fault("an image that is not one", "DataError", "stopped", "setup")
def not_an_image(world):
    (world.folder / "one.png").write_text("<html>404</html>")
    world.answers([*ROWS[:-1], {**ROWS[-1], "image": "one.png"}])


@fault("a prompt longer than the context", "prompt_length", "stopped")
def long_prompt(world):
    return world.check(world.answers([*ROWS[:-1], {"question": "how many are there? " * 200, "answer": "2"}]))


@fault("characters that the tokenizer does not have", "tokenizer", "flagged")
def lossy_tokenizer(world):
    session = world.answers(ROWS)
    encoder = session.policy.encoder
    ids = encoder.text_ids
    world.patch.setattr(encoder, "text_ids", lambda text: ids(text.replace("plus", "")))
    return world.check(session)


@fault("a file without rows", "DataError", "stopped", "setup")
def no_rows(world):
    world.answers([])


@fault("a single row", "data_variety", "flagged")
def single_row(world):
    return world.check(world.answers(ROWS[:1]))


@fault("the same row many times", "data_variety", "flagged")
def duplicates(world):
    return world.check(world.answers(ROWS[:2] * 10))


@fault("evaluation on the training file", "ConfigError", "stopped", "setup")
def evaluates_on_training(world):
    world.answers(ROWS, eval={"suite": {"name": "rewards", "data": str(world.folder / "rows.jsonl")}})


@fault("evaluation on a copy of training rows", "eval_overlap", "flagged")
def evaluates_on_copy(world):
    world.answers(ROWS[:4])
    shutil.copy(world.folder / "rows.jsonl", world.folder / "eval.jsonl")
    return world.check(
        world.answers(ROWS, eval={"suite": {"name": "rewards", "data": str(world.folder / "eval.jsonl")}})
    )


@fault("a full disk", "disk_space", "stopped")
def full_disk(world):
    world.patch.setattr("motet.preflight.checks.weights.free_bytes", lambda folder: 1000)
    return world.check(world.session())


@fault("space for one checkpoint only", "disk_space", "flagged")
def little_space(world):
    session = world.session()
    needed = checkpoint_bytes(session.policy)
    world.patch.setattr("motet.preflight.checks.weights.free_bytes", lambda folder: needed)
    return world.check(session)


@fault("an output folder that cannot be written", "RunFolderError", "stopped", "setup")
def unwritable(world):
    def denied(self, *arguments, **settings):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    folder = RunFolder(world.folder / "out", resume=False)
    world.patch.setattr(Path, "mkdir", denied)
    folder.create("")


@fault("a truncated checkpoint", "CheckpointError", "stopped", "setup")
def truncated_checkpoint(world):
    broken = world.folder / "broken"
    shutil.copytree(world.checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    world.fresh(policy={"path": str(broken), "device": "cpu"})


@fault("a checkpoint of another architecture", "CheckpointError", "stopped", "setup")
def other_architecture(world):
    other = world.folder / "other"
    shutil.copytree(world.checkpoint, other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 48'))
    world.fresh(policy={"path": str(other), "device": "cpu"})


@fault("a checkpoint damaged before a resume", "CheckpointError", "stopped", "resume")
def damaged_resume(world):
    session = world.fresh()
    saved = save_checkpoint(
        world.folder, session.policy, session.optimizer, Progress(1, 1.0, session.data_state()), keep=1
    )
    weights = saved / "learner.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    restore(saved, session.policy, session.optimizer)


@fault("a checkpoint of another model at a resume", "CheckpointError", "stopped", "resume")
def resumes_another(world):
    first = world.fresh(policy={"path": str(world.checkpoint), "device": "cpu", "train": ["lm_head"]})
    saved = save_checkpoint(world.folder, first.policy, first.optimizer, Progress(1, 1.0, first.data_state()), keep=1)
    second = world.fresh(policy={"path": str(world.checkpoint), "device": "cpu", "train": ["generation_head"]})
    restore(saved, second.policy, second.optimizer)
