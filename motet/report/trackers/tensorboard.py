"""TensorBoard: event files in the run folder, by `torch.utils.tensorboard`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from motet.report.trackers.base import Metrics, Results, RunInfo, Samples, Tracker


class TensorBoard(Tracker):
    """Writes to `log_dir`; None: `tensorboard` in the run folder. Show it with `tensorboard --logdir FOLDER`."""

    requires: ClassVar[tuple[str, ...]] = ("tensorboard",)
    extra: ClassVar[str] = "tensorboard"

    def __init__(self, log_dir: str | None = None) -> None:
        self.log_dir = log_dir
        self._writer: Any = None

    def start(self, run: RunInfo, resumed: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(self.log_dir) if self.log_dir is not None else run.folder / "tensorboard"
        # What a run that is resumed wrote after its last checkpoint is dropped, as its steps are repeated.
        self._writer = SummaryWriter(str(folder), purge_step=run.step + 1)
        self._writer.add_text("recipe", _literal(run.recipe_yaml), run.step)

    def log(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_samples(self, step: int, samples: Samples) -> None:
        for place, shown in enumerate(samples.images):
            pixels = np.asarray(shown.image.convert("RGB"))
            self._writer.add_image(f"{samples.name}/{place}", pixels, step, dataformats="HWC")
        captions = [f"image {place}: {shown.caption}" for place, shown in enumerate(samples.images)]
        texts = [
            f"{text.act}, reward {text.reward}\nprompt: {text.prompt}\ntext: {text.text}" for text in samples.texts
        ]
        if captions or texts:
            self._writer.add_text(samples.name, _literal("\n\n".join([*captions, *texts])), step)
        self._writer.flush()

    def finish(self, results: Results) -> None:
        if results.rows:
            lines = [" | ".join(results.columns), " | ".join("---" for _ in results.columns)]
            lines += [f"{name} | {_cell(before)} | {_cell(after)}" for name, before, after in results.rows]
            self._writer.add_text("results", "\n".join(lines))
        self._writer.close()


def _literal(text: str) -> str:
    """The text as an indented block of Markdown, which is shown as it is."""
    return textwrap.indent(text, "    ", lambda _: True)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
