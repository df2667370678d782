"""MLflow: a database file beside the run folder, or a tracking server."""

from __future__ import annotations

import os
import re
import time
from contextlib import nullcontext
from importlib import import_module
from typing import Any, ClassVar

from filelock import FileLock

from motet.core.printable import printable
from motet.report.trackers.base import TEXT_COLUMNS, Metrics, Results, RunInfo, Samples, Tracker, leaves

_LONGEST_PARAMETER, _PARAMETERS_AT_ONCE = 500, 100


class Mlflow(Tracker):
    """Logs to `experiment` at `tracking_uri`; None: MLFLOW_TRACKING_URI, or the file `mlflow.db` beside the run folder.

    Images and texts are artifacts of the run. `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows such a
    file. `run_name` is None for the last two parts of the folder's path.
    """

    requires: ClassVar[tuple[str, ...]] = ("mlflow",)
    extra: ClassVar[str] = "mlflow"

    def __init__(
        self, experiment: str = "motet", tracking_uri: str | None = None, *, run_name: str | None = None
    ) -> None:
        self.experiment, self.tracking_uri, self.run_name = experiment, tracking_uri, run_name
        self._client: Any = None
        self._metric: Any = None
        self._id = ""
        self._step = 0

    def start(self, run: RunInfo, resumed: Any) -> str:
        mlflow = import_module("mlflow")
        self._metric, parameter = mlflow.entities.Metric, mlflow.entities.Param
        beside = run.folder.absolute().parent
        given = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._step = run.step
        database = beside / "mlflow.db"
        # Two runs that start at once would both make the tables of the database.
        with nullcontext() if given else FileLock(f"{database}.lock"):
            self._client = client = mlflow.MlflowClient(tracking_uri=given or f"sqlite:///{database}")
            if resumed:
                self._id = str(resumed)
                client.update_run(self._id, status="RUNNING")
                return self._id
            found = client.get_experiment_by_name(self.experiment)
            artifacts = None if given else (beside / "mlartifacts" / self.experiment).as_uri()
            experiment = found.experiment_id if found else client.create_experiment(self.experiment, artifacts)
        name = printable(self.run_name or run.name, lines=False)
        self._id = client.create_run(experiment, run_name=name).info.run_id
        client.log_text(self._id, run.recipe_yaml, "recipe.yaml")
        parameters = [parameter(_name(key), str(value)[:_LONGEST_PARAMETER]) for key, value in leaves(run.recipe)]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            client.log_batch(self._id, params=parameters[first : first + _PARAMETERS_AT_ONCE])
        return self._id

    def log(self, step: int, metrics: Metrics) -> None:
        self._step, now = step, int(time.time() * 1000)
        values = [self._metric(_name(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def log_samples(self, step: int, samples: Samples) -> None:
        for place, shown in enumerate(samples.images):
            self._client.log_image(self._id, shown.image.convert("RGB"), key=f"{samples.name}/{place}", step=step)
        content = {
            "captions": [shown.caption for shown in samples.images],
            "texts": [dict(zip(TEXT_COLUMNS, row, strict=True)) for row in samples.rows],
        }
        if samples.images or samples.texts:
            self._client.log_dict(self._id, content, f"{samples.name}/step_{step:06d}.json")

    def finish(self, results: Results) -> None:
        if results.rows:
            content = [dict(zip(results.columns, row, strict=True)) for row in results.rows]
            self._client.log_dict(self._id, {"results": content}, "results.json")
        self._client.set_terminated(self._id)


def _name(text: str) -> str:
    """MLflow allows letters, digits and a few signs in names."""
    return re.sub(r"[^\w\-. :/]", "_", text)[:250]
