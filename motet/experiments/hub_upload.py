"""Upload a checkpoint with its card to the Hugging Face Hub: which files, from where, and the upload itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from motet.core.errors import ConfigError, OutputError
from motet.core.registry import first_line
from motet.experiments.model_card import ADAPTER, README, Card, Source, hub_id
from motet.weights.locate import CHECKSUMS, LEARNER, LEARNER_SHARDS, RANDOM_STATE, ROLLOUT_WEIGHTS, TRAINER_STATE

TRAINING_FILES = (LEARNER, LEARNER_SHARDS, ROLLOUT_WEIGHTS, RANDOM_STATE, TRAINER_STATE, CHECKSUMS)
"""What a checkpoint has for a resume, by the first part of its path: uploaded only with `optimizer`."""
SAMPLE_FOLDERS = ("samples", "fixed_prompts")
"""Where a run keeps what it generated, with rows of its data: uploaded only with `samples`."""

Files = Mapping[str, Path | bytes]
"""Path in the repository -> a file, or its content."""


class Extra(NamedTuple):
    """What is uploaded beside the model and its card."""

    optimizer: bool = False
    samples: bool = False


def files_to_upload(source: Source, card: Card, base: str | None, extra: Extra) -> dict[str, Path | bytes]:
    """The checkpoint's files, the card and its images, by their path in the repository.

    An adapter names its base by a hub id, `base` if given; raises ConfigError for one that names a local folder.
    """
    files: dict[str, Path | bytes] = {}
    for path in sorted(source.checkpoint.rglob("*")):
        name = path.relative_to(source.checkpoint).as_posix()
        if path.is_file() and (extra.optimizer or name.split("/")[0] not in TRAINING_FILES):
            files[name] = _with_base(path, base) if path.name == ADAPTER else path
    if extra.samples and source.run is not None:
        for folder in SAMPLE_FOLDERS:
            for path in sorted((source.run.path / folder).rglob("*")):
                if path.is_file():
                    files[path.relative_to(source.run.path).as_posix()] = path
    return {**files, **card.files, README: card.text.encode()}


def size_of(content: Path | bytes) -> int:
    """In bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def upload(files: Files, repo: str, *, private: bool) -> str:
    """Create the repository if needed and upload the files; its address. Raises ConfigError, OutputError."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ConfigError(
            "There is no token for the Hugging Face Hub.",
            fix="run `hf auth login`, or set HF_TOKEN; --dry-run lists the files without one.",
        )
    api = HfApi()
    with TemporaryDirectory(prefix="motet-push-") as folder:
        _lay_out(files, Path(folder))
        try:
            created = api.create_repo(repo, private=private or None, exist_ok=True)
            api.upload_folder(repo_id=created.repo_id, folder_path=folder, commit_message="Upload by motet push")
        except Exception as error:  # no network, no access, no space: the hub client has a class for each
            raise OutputError(
                f"The upload to {repo!r} failed: {first_line(error).rstrip('.')}.",
                fix="check the network, HF_HUB_OFFLINE, and that your token may write there; the same command again "
                "continues: files that are already there are not sent twice.",
            ) from error
    return str(created)


def check_repo_id(repo: str) -> None:
    """Raise ConfigError unless it may be the id of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is not a hub id: {first_line(error)}", fix="write OWNER/NAME.") from error


def _lay_out(files: Files, folder: Path) -> None:
    """A folder with the files under their names: links, so that no weights are copied."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            os.symlink(content.resolve(), target)


def _with_base(path: Path, base: str | None) -> Path | bytes:
    content = json.loads(path.read_text(encoding="utf-8"))
    named = content.get("base_model_name_or_path")
    if base is None and hub_id(named) is None:
        raise ConfigError(
            f"{path.name} names the base {named!r}, which is not a hub id: nobody else could load the adapter.",
            fix="add --base OWNER/NAME, or upload full weights: motet merge RUN --method average --out merged.",
        )
    if base is None or base == named:
        return path
    return (json.dumps(content | {"base_model_name_or_path": base}, indent=2) + "\n").encode()
