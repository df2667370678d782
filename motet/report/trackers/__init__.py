"""Trackers (`run.report_to`): other libraries that show a run's metrics, images, texts and results."""

from motet.core.registry import registry
from motet.report.trackers.base import Results, RunInfo, Samples, ShownImage, ShownText, Tracker
from motet.report.trackers.mlflow import Mlflow
from motet.report.trackers.tensorboard import TensorBoard
from motet.report.trackers.trackio import Trackio
from motet.report.trackers.wandb import Wandb

for _name, _class in (("tensorboard", TensorBoard), ("trackio", Trackio), ("wandb", Wandb), ("mlflow", Mlflow)):
    registry("tracker").add(_name, _class)

__all__ = ["Results", "RunInfo", "Samples", "ShownImage", "ShownText", "Tracker"]
