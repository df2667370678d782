"""Disjoint experts (PromptRL, arXiv 2602.01382): a language model and a diffusion pipeline without a shared weight."""

from __future__ import annotations

import json
from pathlib import Path

from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.policies.composite import CompositePolicy
from motet.policies.diffusion.pipeline.policy import PipelinePolicy
from motet.policies.qwen_vl import VlmPolicy

MODEL_TYPE = "motet_experts"
LANGUAGE, PIPELINE = "language_model", "pipeline"


class ExpertsPolicy(CompositePolicy):
    """The language model writes, the pipeline draws; `policy.train` names parts of either, or of both.

    No gradient passes between them: what the language model wrote reaches the pipeline as text.
    """

    def __init__(self, writer: VlmPolicy, drawer: PipelinePolicy) -> None:
        super().__init__({"text": writer, "denoising": drawer})

    def save(self, folder: Path) -> None:
        """`language_model/` (or its adapter) as transformers and peft load it, `pipeline/` as diffusers does."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.writer.save(folder / LANGUAGE)
            self.drawer.save(folder / PIPELINE)
            (folder / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE}) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{str(folder)!r} cannot be written: {first_line(error)}",
                fix="check the disk and the folder's permissions.",
            ) from error
