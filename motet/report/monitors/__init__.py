"""Monitors: callbacks that compare what a run does with bounds, and warn or stop it. Also the best checkpoint."""

from motet.core.registry import registry
from motet.report.monitors.best_checkpoint import BestCheckpoint
from motet.report.monitors.image_diversity import ImageDiversity
from motet.report.monitors.metric_bound import MetricBound
from motet.report.monitors.retention import Retention
from motet.report.monitors.rollout_images import RolloutImages

for _class in (BestCheckpoint, ImageDiversity, MetricBound, Retention, RolloutImages):
    registry("callback").add(_class.name, _class)

__all__ = ["BestCheckpoint", "ImageDiversity", "MetricBound", "Retention", "RolloutImages"]
