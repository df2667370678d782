"""Datasets of the hub, and local folders that `datasets.load_dataset` loads: images, Parquet, WebDataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from motet.config.schema import HUB_OPTIONS, DataConfig
from motet.core.errors import ConfigError, DataError
from motet.core.registry import did_you_mean, first_line
from motet.data.files import SUFFIXES
from motet.data.from_datasets import from_dataset, from_stream
from motet.data.source import Source
from motet.data.streaming import SHUFFLE_BUFFER
from motet.weights.hub import missing_reason


def open_hub(config: DataConfig, seed: int, images: Collection[str]) -> Source:
    import datasets

    name, local = config.source, Path(config.source).expanduser()
    missing = missing_reason(name, "data", "dataset") if "/" in name else None
    if missing is not None:
        raise DataError(
            f"data.source={name!r}: {missing}",
            fix=f"give a {', '.join(SUFFIXES)} file, a folder saved by datasets, a hub id, or `shapes`.",
        )
    options = dict(config.options)
    for option in options:
        if option not in HUB_OPTIONS:
            raise ConfigError(
                f"data.options has an unknown key {option!r}.{did_you_mean(option, HUB_OPTIONS)}",
                fix=f"the options of a hub dataset are {', '.join(HUB_OPTIONS)}.",
            )
    streaming, buffer = options.get("streaming", False), options.pop("shuffle_buffer", SHUFFLE_BUFFER)
    _check_streaming(config, streaming, buffer)
    try:
        dataset = datasets.load_dataset(str(local) if local.exists() else name, split=config.split, **options)
    except Exception as error:
        raise DataError(
            f"data.source={name!r}, split {config.split!r}, cannot be loaded: {first_line(error)}."
            f"{did_you_mean(name, ['shapes'])}",
            fix="check the hub id, data.split, data.options.name (the configuration) and the network.",
        ) from error
    folder = _folder(local, config.options)
    return (
        from_stream(dataset, name, folder, seed, buffer) if streaming else from_dataset(dataset, name, folder, images)
    )


def _check_streaming(config: DataConfig, streaming: Any, buffer: Any) -> None:
    """Raise ConfigError for options of streaming that contradict each other or have other types."""
    if not isinstance(streaming, bool):
        raise ConfigError(
            f"data.options.streaming={streaming!r} is not true or false.", fix="write true, or remove it."
        )
    if not isinstance(buffer, int) or isinstance(buffer, bool) or buffer < 1:
        raise ConfigError(
            f"data.options.shuffle_buffer={buffer!r} is not a number of rows; expected an integer of at least 1.",
            fix=f"correct it, or remove it: the default is {SHUFFLE_BUFFER}.",
        )
    if "shuffle_buffer" in config.options and not streaming:
        raise ConfigError(
            "data.options.shuffle_buffer is for streams; other datasets are shuffled as a whole.",
            fix="remove it, or set data.options.streaming to true.",
        )
    if streaming and config.size is not None:
        raise ConfigError(
            f"data.size={config.size} is not supported by a stream, whose rows are read in one order.",
            fix="remove data.size or data.options.streaming.",
        )


def _folder(local: Path, options: Mapping[str, Any]) -> Path:
    """The base folder of image paths: the local folder that was loaded, or that of a local `data_files`."""
    if local.is_dir():
        return local
    files = options.get("data_files")
    beside = Path(str(files)).expanduser()
    return beside.parent if isinstance(files, str) and beside.is_file() else Path.cwd()
