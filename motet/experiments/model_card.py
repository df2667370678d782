"""The model card of a run or a checkpoint: what it is, how it was trained, what was measured before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from motet.config import Recipe, load_recipe
from motet.core.errors import CheckpointError, ConfigError
from motet.core.printable import plural
from motet.experiments.card_results import Evaluated, eval_results, read_evaluations, results_section
from motet.report.learning_curve import has_plots, learning_curve
from motet.report.markdown import code_block, escape_markdown
from motet.report.run_dir import RECIPE, START, RunFolder
from motet.report.versions import VERSIONS, describe_versions
from motet.weights.locate import CONFIG, best_checkpoint, resolve_checkpoint, step_of

README, CURVE = "README.md", "curve.png"
GRIDS = ("before.png", "after.png")
ADAPTER, PIPELINE = "adapter_config.json", "model_index.json"
PIPELINE_LORA = "lora", "pytorch_lora_weights.safetensors"
"""Folder and file of a pipeline's adapter, which the weights beside it already contain."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CITATION = """@software{{motet,
  title = {{motet: reinforcement-learning post-training of unified multimodal models}},
  version = {{{version}}}
}}"""


@dataclass(frozen=True)
class Source:
    """What is described: a checkpoint, and the run that wrote it, if it is known."""

    checkpoint: Path
    run: RunFolder | None
    recipe: Recipe | None


@dataclass(frozen=True)
class Card:
    """The text of README.md, and the files that it shows, by name; `notes` say what it lacks and why."""

    text: str
    files: dict[str, bytes]
    notes: tuple[str, ...]


def find_source(path: Path, *, best: bool = False) -> Source:
    """The newest (or best) checkpoint of a run folder, or a checkpoint folder with the run that it lies in.

    Raises CheckpointError for a folder without weights.
    """
    run = path if (path / RECIPE).is_file() else path.parent.parent
    checkpoint = Path(resolve_checkpoint(path))
    if best:
        found = best_checkpoint(path / "checkpoints")
        if found is None:
            raise CheckpointError(
                f"{str(path)!r} does not name a best checkpoint.",
                fix="leave out --best, or train with the callback best_checkpoint.",
            )
        checkpoint = found
    if not any((checkpoint / name).is_file() for name in (CONFIG, ADAPTER, PIPELINE)):
        raise CheckpointError(
            f"{str(path)!r} is neither a run with a checkpoint nor a checkpoint.",
            fix="name a run folder, one of its stages, or a checkpoint folder.",
        )
    if not (run / RECIPE).is_file() or not checkpoint.is_relative_to(run):
        return Source(checkpoint, None, None)
    return Source(checkpoint, RunFolder(run, resume=True), load_recipe(run / RECIPE))


def hub_id(text: Any) -> str | None:
    """The text if it has the form OWNER/NAME of a hub id and is not a local folder, else None."""
    is_id = isinstance(text, str) and _HUB_ID.fullmatch(text) and not Path(text).exists()
    return text if is_id else None


def make_card(
    source: Source,
    repo: str | None = None,
    *,
    base: str | None = None,
    license: str | None = None,
    seeds: Sequence[Path] = (),
) -> Card:
    """The card, for the hub's repository `repo` if known. `base` and `license` are ids of the hub.

    `seeds` are further runs of the recipe: the evaluation is then that of all seeds together. Raises ConfigError for
    runs of another recipe, and for `seeds` beside a checkpoint whose run is not known.
    """
    from huggingface_hub import ModelCardData

    recipe, notes = source.recipe, list[str]()
    base = base or hub_id(recipe.policy.path if recipe else _adapter_base(source.checkpoint))
    name = (repo or (source.run.path if source.run else source.checkpoint).name).split("/")[-1]
    evaluated = _evaluations(source, seeds)
    metadata = ModelCardData(
        base_model=base,
        library_name=_library(source.checkpoint),
        license=license,
        tags=_tags(recipe),
        model_name=name,
        eval_results=(eval_results(evaluated) if evaluated else None) or None,
    )
    files: dict[str, bytes] = {}
    results = results_section(evaluated) if evaluated else ""
    parts = [
        f"# {escape_markdown(name)}",
        _summary(source, base),
        results,
        *_images(source, files, notes),
    ]
    parts += ["## Use", code_block(_usage(source.checkpoint, repo or "OWNER/NAME", base), "python")]
    parts += _training(source)
    parts += [
        "## Licence",
        _license(license, notes),
        "## Citation",
        code_block(_CITATION.format(version=version("motet"))),
    ]
    text = f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"
    return Card(text, files, tuple(notes))


def _evaluations(source: Source, seeds: Sequence[Path]) -> Evaluated | None:
    if source.run is None or source.recipe is None:
        if seeds:
            raise ConfigError(
                f"The run that wrote {str(source.checkpoint)!r} is not known, so other seeds cannot be compared to it.",
                fix="name a run folder, or leave out --seed-run.",
            )
        return None
    others = [(RunFolder(path, resume=True), load_recipe(path / RECIPE)) for path in seeds]
    return read_evaluations([(source.run, source.recipe), *others])


def _summary(source: Source, base: str | None) -> str:
    recipe = source.recipe
    if recipe is None:
        return "A checkpoint of motet. The run that wrote it is not known."
    start = base or Path(recipe.policy.path).name
    tracks = recipe.resolved_tracks().values()
    scenarios = ", ".join(sorted({f"`{track.scenario.name}`" for track in tracks}))
    rewards = ", ".join(sorted({escape_markdown(reward.name) for track in tracks for reward in track.rewards}))
    how = (
        f"by reinforcement learning ({escape_markdown(recipe.algorithm.loss.name)}) on the rewards {rewards}"
        if rewards
        else "by SFT"
    )
    trained = f"{escape_markdown(start)}, trained {how}; scenarios: {scenarios}."
    recorded = source.run and describe_versions(source.run.read_lines(VERSIONS), "motet")
    by = f"Trained with motet {recorded}." if recorded else "The version of motet that trained it is not recorded."
    return f"{trained} {by}\n\n{escape_markdown(recipe.description or '')}".rstrip()


def _images(source: Source, files: dict[str, bytes], notes: list[str]) -> list[str]:
    """References to the learning curve and the grids of images, which are added to `files`."""
    if source.run is None:
        return []
    curve = learning_curve(source.run.read_metrics()) if has_plots() else None
    if curve is not None:
        files[CURVE] = curve
    elif not has_plots():
        notes.append('The card has no learning curve, which needs matplotlib: pip install "motet[plots]".')
    grids = {name: source.run.path / name for name in GRIDS if (source.run.path / name).is_file()}
    files |= {name: path.read_bytes() for name, path in grids.items()}
    titles = {CURVE: "Learning curve", "before.png": "Samples before training", "after.png": "Samples after training"}
    return [f"![{titles[name]}]({name})" for name in titles if name in files]


def _training(source: Source) -> list[str]:
    if source.run is None or source.recipe is None:
        return []
    from motet.config import to_yaml

    summary, start = source.run.read_json("summary.json") or {}, source.run.read_json(START) or {}
    steps = step_of(source.checkpoint)
    facts = [f"seed {source.recipe.run.seed}", plural(steps, "step") if steps >= 0 else ""]
    facts += [f"{summary['seconds']} s of training" if summary.get("seconds") else ""]
    facts += [f"start: {escape_markdown(str(digest))}" for digest in start.values() if digest]
    return ["## Training", ", ".join(fact for fact in facts if fact) + ".", code_block(to_yaml(source.recipe), "yaml")]


def _usage(checkpoint: Path, repo: str, base: str | None) -> str:
    """How the libraries load it."""
    if (checkpoint / ADAPTER).is_file():
        load = f'model = PeftModel.from_pretrained(base, "{repo}")'
        return f"from peft import PeftModel\n\n# base: {base or 'the base model'}, loaded with transformers\n{load}"
    if (checkpoint / PIPELINE).is_file():
        load = f'from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained("{repo}")'
        folder, file = PIPELINE_LORA
        options = f'"{repo}", subfolder="{folder}", weight_name="{file}"'
        lora = f"\n# or the adapter alone, onto the base: pipeline.load_lora_weights({options})"
        return load + lora * (checkpoint / folder / file).is_file()
    names = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8")).get("architectures") or []
    if len(names) == 1 and str(names[0]).isidentifier():
        return f'from transformers import {names[0]}\n\nmodel = {names[0]}.from_pretrained("{repo}")'
    return f'import motet\n\npolicy = motet.load_policy("{repo}")'


def _library(checkpoint: Path) -> str:
    if (checkpoint / ADAPTER).is_file():
        return "peft"
    return "diffusers" if (checkpoint / PIPELINE).is_file() else "transformers"


def _tags(recipe: Recipe | None) -> list[str]:
    if recipe is None:
        return ["motet"]
    tracks = recipe.resolved_tracks().values()
    names = [recipe.algorithm.loss.name] if any(track.rewards for track in tracks) else ["sft"]
    return ["motet", *("reinforcement-learning" for name in names if name != "sft"), *names]


def _license(license: str | None, notes: list[str]) -> str:
    if license is not None:
        return escape_markdown(license)
    notes.append("The card states no licence: add --license ID, such as apache-2.0; that of the base model applies.")
    return "Not stated. The licence of the base model applies to these weights too."


def _adapter_base(checkpoint: Path) -> Any:
    path = checkpoint / ADAPTER
    return json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") if path.is_file() else None
