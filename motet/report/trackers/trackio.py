"""trackio: Hugging Face's local tracker, with a dashboard by gradio (`trackio show`)."""

from __future__ import annotations

import secrets
from importlib import import_module
from typing import Any, ClassVar

from motet.core.printable import printable
from motet.report.trackers.base import TEXT_COLUMNS, Metrics, Results, RunInfo, Samples, Tracker


class Trackio(Tracker):
    """Logs to `project`, in trackio's own folder (TRACKIO_DIR) or to the Space `space_id` of the hub.

    trackio knows runs by name: `run_name` (None: the last two parts of the folder's path) gets four random digits.
    """

    requires: ClassVar[tuple[str, ...]] = ("trackio",)
    extra: ClassVar[str] = "trackio"

    def __init__(self, project: str = "motet", space_id: str | None = None, *, run_name: str | None = None) -> None:
        self.project, self.space_id, self.run_name = project, space_id, run_name
        self._trackio: Any = None
        self._step = 0

    def start(self, run: RunInfo, resumed: Any) -> str:
        self._trackio, self._step = import_module("trackio"), run.step
        name = resumed or printable(f"{self.run_name or run.name}-{secrets.token_hex(2)}", lines=False)
        self._trackio.init(
            project=self.project,
            name=name,
            space_id=self.space_id,
            config=dict(run.recipe),
            resume="allow" if resumed else "never",
            embed=False,
        )
        return name

    def log(self, step: int, metrics: Metrics) -> None:
        self._step = step
        self._trackio.log(dict(metrics), step=step)

    def log_samples(self, step: int, samples: Samples) -> None:
        content: dict[str, Any] = {
            f"{samples.name}/{place}": self._trackio.Image(shown.image, caption=printable(shown.caption))
            for place, shown in enumerate(samples.images)
        }
        if samples.texts:
            content[f"{samples.name}/texts"] = self._trackio.Table(columns=list(TEXT_COLUMNS), data=samples.rows)
        if content:
            self._trackio.log(content, step=step)

    def finish(self, results: Results) -> None:
        if results.rows:
            rows = [list(row) for row in results.rows]
            table = self._trackio.Table(columns=list(results.columns), data=rows)
            self._trackio.log({"results": table}, step=self._step)
        self._trackio.finish()
