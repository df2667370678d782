"""The entry point by which lmms-eval finds the model `motet` (group `lmms_eval.models`)."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers; the model is imported when it is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest("motet", simple_class_path="motet.evaluation.lmms_eval.model.MotetModel")
