"""The tasks of reasoning-gym as a source: `data.source: reasoning_gym`, `data.options: {task: NAME, ...}`.

Stojanovski et al. 2025 (arXiv 2505.24760), Apache-2.0: generators of questions with scorers. A row is generated from a
seed and its number, so that there is no file. The reward `reasoning_gym` scores the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.config.schema import DataConfig
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean, first_line
from motet.data.files import Row
from motet.data.source import Source

SPLITS = {"train": 0, "test": 2**30}
"""Split -> offset of its seed. A row's generator is seeded by the sum of seed and row number, which stay apart."""
ROWS = 10**6
"""Number of rows of a task where `data.size` does not say it."""


def open_reasoning_gym(config: DataConfig, seed: int) -> Source:
    """Rows with the columns question, answer and reasoning_gym, which says how the scorer generates the row again.

    `data.options` are `task` and the generator's own. Raises ConfigError for a missing package, and for an unknown
    task, option or split.
    """
    if config.split not in SPLITS:
        fix = f"use one of: {', '.join(SPLITS)}."
        raise ConfigError(f"data.split={config.split!r} is not a split of reasoning_gym.", fix=fix)
    options = dict(config.options)
    task, size = options.pop("task", None), config.size or ROWS
    settings = {**options, "seed": SPLITS[config.split] + seed % 1024 * ROWS, "size": size}
    generator = _open(task, settings)
    name = f"reasoning_gym ({task}, {config.split})"

    def read(i: int) -> Row:
        entry = generator[i]
        made_of = {"task": task, "settings": settings, "index": i}
        return {"question": entry["question"], "answer": entry["answer"], "reasoning_gym": made_of}

    columns = ("question", "answer", "reasoning_gym")
    return Source(
        name, columns, size, Path.cwd(), read, lambda i: f"Row {i} of {name}", lambda: iter(()), generated=True
    )


def _open(task: Any, settings: Mapping[str, Any]) -> Any:
    try:
        from reasoning_gym import create_dataset
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise ConfigError(
            "data.source='reasoning_gym' needs the package reasoning-gym.", fix='pip install "motet[reasoning]".'
        ) from None
    if not isinstance(task, str) or task not in DATASETS:
        hint = did_you_mean(task, DATASETS) if isinstance(task, str) else ""
        raise ConfigError(
            f"data.options.task={task!r} is not a task of reasoning-gym.{hint}",
            fix=f"use one of its {len(DATASETS)} tasks, such as leg_counting.",
        )
    try:
        return create_dataset(task, **settings)
    except Exception as error:  # a generator checks its options by assertions
        raise ConfigError(
            f"data.options of the task {task!r} are not valid: {first_line(error)}.",
            fix=f"give options of the generator {task}, as reasoning-gym documents them.",
        ) from error
