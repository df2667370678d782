"""Weights & Biases, online or offline."""

from __future__ import annotations

import secrets
from importlib import import_module
from typing import Any, ClassVar

from motet.core.printable import printable
from motet.report.trackers.base import TEXT_COLUMNS, Metrics, Results, RunInfo, Samples, Tracker


class Wandb(Tracker):
    """Logs to `project` of `entity` (None: the account's own). Files lie in the run folder.

    `mode` is online, offline (`wandb sync FOLDER` uploads later) or disabled; None: what WANDB_MODE says, or online.
    `group` and `tags` are those of `wandb.init`; `run_name` is None for the last two parts of the folder's path.
    """

    requires: ClassVar[tuple[str, ...]] = ("wandb",)
    extra: ClassVar[str] = "wandb"

    def __init__(
        self,
        project: str = "motet",
        entity: str | None = None,
        *,
        mode: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        run_name: str | None = None,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.group, self.tags, self.run_name = group, tags, run_name
        self._wandb: Any = None
        self._run: Any = None

    def start(self, run: RunInfo, resumed: Any) -> str:
        self._wandb = wandb = import_module("wandb")
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            group=self.group,
            tags=self.tags,
            name=printable(self.run_name or run.name, lines=False),
            id=resumed or secrets.token_hex(4),
            resume="allow",
            dir=str(run.folder),
            config=dict(run.recipe),
            settings=wandb.Settings(console="off"),  # motet's own output stays as it is
        )
        # A resumed run repeats the steps after its checkpoint, and wandb's own count of steps only grows.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        return self._run.id

    def log(self, step: int, metrics: Metrics) -> None:
        self._run.log({**metrics, "step": step})

    def log_samples(self, step: int, samples: Samples) -> None:
        content: dict[str, Any] = {}
        if samples.images:
            content[samples.name] = [
                self._wandb.Image(shown.image, caption=printable(shown.caption)) for shown in samples.images
            ]
        if samples.texts:
            content[f"{samples.name}/texts"] = self._wandb.Table(columns=list(TEXT_COLUMNS), data=samples.rows)
        if content:
            self._run.log({**content, "step": step})

    def finish(self, results: Results) -> None:
        if results.rows:
            rows = [list(row) for row in results.rows]
            self._run.log({"results": self._wandb.Table(columns=list(results.columns), data=rows)})
            for name, before, after in results.rows:
                values = {"before": before, "after": after}
                self._run.summary.update(
                    {f"{when}/{name}": value for when, value in values.items() if value is not None}
                )
        self._run.finish()
