"""What tests of whole runs share: a tiny Janus, recipes on a tiny canvas, the command line in this process."""

import copy
import json
from collections.abc import Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

import motet.cli
from motet.config import Recipe, parse_recipe
from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.report.callbacks import Callback, CallbackList
from motet.report.run_dir import RunFolder
from motet.shapes.world import ShapesRows
from motet.testing import FakePolicy
from motet.training.engines import Engines
from motet.training.remote_rollout import RemoteRollout
from motet.training.run_loop import Run
from motet.training.setup import setup_rl, setup_sft
from motet.training.sft import train_sft
from motet.training.signals import Interrupt
from motet.training.trainer import train

WORLD = {"canvas": 16, "grid": 2, "max_objects": 3, "max_count": 3}
SIZES = TinySizes(
    hidden=32, layers=2, heads=2, intermediate=64, image=16, patch=4, codes=32, vision_hidden=32, vision_layers=1,
    vision_heads=2, max_positions=256,
)  # fmt: skip
REWARDS = f"{Path(__file__).parent / 'fake_rewards.py'}:"
CALLBACKS = f"{Path(__file__).parent / 'fake_callbacks.py'}:"


def save_tiny_janus(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, sizes: TinySizes = SIZES) -> Path:
    """A Janus of a few thousand weights, which draws 16 pixels wide, as a checkpoint."""
    rows = [ShapesRows("train", 0, WORLD).row(index) for index in range(60)]
    texts = [f": {row['prompt']}\n\n" for row in rows] + [f"\n{row['question']}\n\n" for row in rows]
    tokenizer = tiny_tokenizer(texts + [row["solution"] for row in rows], vocab_size=320)
    model = tiny_janus(tokenizer, sizes, seed)
    for name, weight in model.model.vqmodel.decoder.named_parameters():
        if "conv2" in name or "proj_out" in name:  # skip the blocks: a code then paints its own place, as it should
            weight.data.zero_()
        elif name == "conv_out.weight":
            weight.data *= 5  # and in colour: random codes are all grey otherwise
    model.to(dtype).save_pretrained(folder)
    tiny_processor(tokenizer, sizes).save_pretrained(folder)
    return folder


def mapping(checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """generate_and_answer on the tiny canvas as a recipe's mapping; `changes` are sections, merged into it."""
    content: dict[str, Any] = {
        "policy": {"path": str(checkpoint), "device": "cpu"},
        "scenario": "generate_and_answer",
        "data": {"source": "shapes", "options": dict(WORLD)},
        "rewards": [
            {"name": f"{REWARDS}reddish", "acts": ["image"]},
            {"name": f"{REWARDS}spacious", "acts": ["answer"]},
        ],
        "algorithm": {"num_generations": 2, "advantage_assignment": "factorized"},
        "sampling": {"text": {"max_tokens": 8}},
        "optimizer": {"learning_rate": 0.003},
        "run": {"steps": 4, "prompts_per_step": 2, "log_samples_every": 3},
    }
    for section, value in copy.deepcopy(changes).items():
        if isinstance(value, dict) and isinstance(content.get(section), dict):
            content[section] |= value
        elif value is None:
            content.pop(section)
        else:
            content[section] = value
    return content


def write_recipe(path: Path, checkpoint: Path, **changes: Any) -> Path:
    """`mapping` as a YAML file."""
    path.write_text(yaml.safe_dump(mapping(checkpoint, **changes)), encoding="utf-8")
    return path


class RecordingCallback(Callback):
    """A watcher that remembers, and asks for the run's end after a step."""

    def __init__(self, interrupt: Interrupt, stop_after: int | None = None) -> None:
        self.interrupt, self.stop_after = interrupt, stop_after
        self.seen: list[dict[str, float]] = []

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        self.seen.append(dict(metrics))
        self.interrupt.asked = self.interrupt.asked or step == self.stop_after


def run_loop(
    recipe: Recipe | dict[str, Any], folder: Path, stop_after: int | None = None, max_staleness: int = 0
) -> list[dict[str, float]]:
    """Train in this process, on from the folder's checkpoint if it has one; returns the metrics of its steps."""
    own_train = partial(train, engines=Engines(max_staleness=max_staleness))
    return _run(setup_rl, own_train, recipe, folder, stop_after)


def run_remote(
    recipe: dict[str, Any],
    folder: Path,
    backend: Any,
    size: int,
    *,
    max_staleness: int = 0,
    stop_after: int | None = None,
) -> list[dict[str, float]]:
    """`run_loop` with its rollouts in actors of a backend."""
    with closing(RemoteRollout.of(backend, parse_recipe(recipe), size)) as rollout:
        engines = Engines(rollout, max_staleness=max_staleness)
        return _run(setup_rl, partial(train, engines=engines), recipe, folder, stop_after)


def run_sft(recipe: Recipe | dict[str, Any], folder: Path, stop_after: int | None = None) -> list[dict[str, float]]:
    """The same for supervised training."""
    return _run(setup_sft, train_sft, recipe, folder, stop_after)


def _run(
    setup: Any, train: Any, recipe: Recipe | dict[str, Any], folder: Path, stop_after: int | None
) -> list[dict[str, float]]:
    session = setup(recipe if isinstance(recipe, Recipe) else parse_recipe(recipe))
    run_folder = RunFolder(folder, resume=(folder / "recipe.yaml").is_file())
    interrupt = Interrupt()
    notes = RecordingCallback(interrupt, stop_after)
    with run_folder.held():
        run_folder.create("")
        train(session, Run(session, run_folder, CallbackList([notes]), interrupt))
    return notes.seen


def metrics(folder: Path, timed: bool = False) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time/", "step_time", "seconds", "images_per_second", "memory/")
    return [{k: v for k, v in line.items() if timed or not k.startswith(clocks)} for line in lines]


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


def motet_command(capsys: Any, *arguments: object) -> Answer:
    """Run `motet ARGUMENTS` in this process, errors and exit status included."""
    capsys.readouterr()
    try:
        motet.cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    else:
        code = None
    out, err = capsys.readouterr()
    return Answer(0 if code is None else int(code), out, err)


class TrainableFakePolicy(FakePolicy):
    """The fake policy with what learning asks for beside it."""

    autocast: torch.dtype | None = None
    rollout_autocast: torch.dtype | None = None
    start: dict[str, torch.Tensor] | None = None

    def freeze_reference(self) -> None:
        self.start = {name: p.detach().clone() for name, p in self.trainable().items()}

    @contextmanager
    def reference(self):
        assert self.start is not None
        now = {name: p.data for name, p in self.trainable().items()}
        try:
            for name, parameter in self.trainable().items():
                parameter.data = self.start[name]
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.trainable().items():
                parameter.data = now[name]
