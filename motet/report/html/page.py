"""The page: what a template shows of one or more runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from motet.core.printable import printable, without_passwords
from motet.report.html.curves import TOTAL, Phase, make_curves, phases_of
from motet.report.html.differences import recipe_differences
from motet.report.html.evaluation import evaluation_table
from motet.report.html.page_images import PageImage, PageImages, evenly
from motet.report.html.plot import number
from motet.report.html.read import RunData
from motet.report.versions import describe_versions

IMAGE_BYTES = 4_000_000
"""Bytes of all images of a page, as they are in it."""
ROLLOUT_STEPS, PROMPT_STEPS, MAX_LISTED = 12, 24, 50
"""The most steps whose rollouts and fixed prompts are shown, and the most failures and warnings listed."""
TEMPLATES = Path(__file__).parent / "templates"
_SECRET = re.compile(
    r"(?im)(\b['\"]?\w*(?:api_?key|passw(?:or)?d|secret|access_token|auth_token)\w*['\"]?\s*:\s+)(?!null\b)[^\s,}].*$"
)


@dataclass(eq=False)
class Frame:
    """What is shown of one step: lists of rollouts by heading."""

    step: int
    lists: dict[str, list[dict[str, Any]]]


@dataclass(eq=False)
class RunView:
    """One run as the template shows it."""

    data: RunData
    number: int
    facts: list[tuple[str, str]]
    phases: list[Phase]
    recipe: str
    comparison: list[tuple[str, PageImage]] = field(default_factory=list)
    prompts: list[Frame] = field(default_factory=list)
    prompt_rows: list[str] = field(default_factory=list)
    rollouts: list[Frame] = field(default_factory=list)
    samples: list[tuple[str, PageImage]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(runs: Sequence[RunData], *, title: str = "") -> str:
    """The page as HTML."""
    views = [_view(run, n, IMAGE_BYTES // len(runs)) for n, run in enumerate(runs)]
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title or (runs[0].label if len(runs) == 1 else f"{len(runs)} runs"),
            runs=views,
            facts=list(dict.fromkeys(label for view in views for label, _ in view.facts)),
            curves=make_curves(runs),
            evaluation=evaluation_table(runs),
            items=_items(runs),
            differences=recipe_differences([run.recipe for run in runs], _without_secrets),
            suites=sorted({run.suite for run in runs if run.before or run.after}),
            version=version("motet"),
            style=Markup(style),
            script=Markup(script),
            style_hash=_digest(style),
            script_hash=_digest(script),
        )
    )


def _items(runs: Sequence[RunData]) -> str:
    """How many items the suite `shapes` evaluated, of each run where they differ; empty where no run has it."""
    counts: dict[str, str] = {}
    for run in runs:
        items = (run.after or run.before or {}).get("items")
        if isinstance(items, dict) and items.keys() >= {"test", "held_out"}:
            counts[run.label] = f"{items['test']} validation items and {items['held_out']} held-out compositions"
    if len(set(counts.values())) <= 1:
        return next(iter(counts.values()), "")
    return "; ".join(f"{label}: {count}" for label, count in counts.items())


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def _shown(value: Any) -> Any:
    """Texts with their control characters as escapes: terminals and bidirectional overrides do not act on them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(text: str) -> str:
    """A source for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _view(run: RunData, n: int, budget: int) -> RunView:
    view = RunView(run, n, _facts(run), phases_of(run), _without_secrets(run.recipe_text))
    images = PageImages(budget)
    for name in ("before", "after"):
        if (run.path / f"{name}.png").is_file() and (image := images.add(run.path / f"{name}.png", 1200)):
            view.comparison.append((name, image))
    view.rollouts = _frames(run, run.rollouts, ("best", "worst"), ROLLOUT_STEPS, images, budget // 3)
    view.prompts = _frames(run, run.prompts, ("prompts",), PROMPT_STEPS, images, budget)
    view.prompt_rows = list(dict.fromkeys(_rows_of(entry) for entry in run.prompts))
    if not view.prompts and not view.rollouts:  # a run of an older version
        view.samples = _sample_grids(run, images)
    view.warnings = list(dict.fromkeys(_warning(line) for line in run.warnings))
    counted = Counter((str(f.get("where", "")), str(f.get("message", ""))) for f in run.failures)
    view.failures = [(where, message, count) for (where, message), count in counted.most_common(MAX_LISTED)]
    view.notes = _notes(run, view, images)
    return view


def _frames(
    run: RunData,
    steps: Sequence[Mapping[str, Any]],
    keys: Iterable[str],
    most: int,
    images: PageImages,
    limit: int,
) -> list[Frame]:
    """The steps to show, of all tracks together; fewer of them where their images would exceed `limit` bytes."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for entry in steps:
        by_step.setdefault(int(entry["step"]), []).append(entry)
    for count in range(min(most, len(by_step)), 0, -1):
        chosen = evenly(sorted(by_step), count)
        size = sum(_size(run, turn) for step in chosen for entry in by_step[step] for turn in _turns(entry))
        if size <= min(limit, images.budget - images.used) or count == 1:
            return [Frame(step, _lists(run, by_step[step], keys, images)) for step in chosen]
    return []


def _turns(entry: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for value in entry.values():
        for rollout in value if isinstance(value, list) else ():
            yield from rollout.get("turns", ()) if isinstance(rollout, dict) else ()


def _file(run: RunData, turn: Mapping[str, Any]) -> Path | None:
    """The image of a turn, which is in the folder of its JSON file or of another kind of rollouts."""
    name = turn.get("image")
    if not isinstance(name, str) or Path(name).name != name:
        return None
    return next(
        (path for path in (run.path / "rollouts" / name, run.path / "fixed_prompts" / name) if path.is_file()), None
    )


def _size(run: RunData, turn: Mapping[str, Any]) -> int:
    path = _file(run, turn)
    return 0 if path is None else 4 * path.stat().st_size // 3


def _lists(
    run: RunData, entries: Sequence[Mapping[str, Any]], keys: Iterable[str], images: PageImages
) -> dict[str, list[dict[str, Any]]]:
    lists: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        lists[key] = []
        for entry in entries:
            best = max((one.get("reward") or 0 for one in entry.get("best") or ()), default=None)
            for rollout in entry.get(key) or ():
                if key != "worst" or best is None or (rollout.get("reward") or 0) < best:
                    lists[key].append(_rollout(run, rollout, str(entry["track"]), images))
    return {key: rollouts for key, rollouts in lists.items() if rollouts or (key == "worst" and lists.get("best"))}


def _rollout(run: RunData, rollout: Mapping[str, Any], track: str, images: PageImages) -> dict[str, Any]:
    """A rollout for the template: turns with images, and the parts of its reward with their weights."""
    turns = []
    for turn in rollout.get("turns") or ():
        path = _file(run, turn)
        turns.append({**turn, "shown": None if path is None else images.add(path), "is_image": "image" in turn})
    weights = rollout.get("weights") or {}
    parts = [(name, value, weights.get(name)) for name, value in (rollout.get("rewards") or {}).items()]
    prompt = [turn for turn in turns if turn.get("by") != "policy"]
    acts = [turn for turn in turns if turn.get("by") == "policy"]
    row = rollout.get("place") or f"row {rollout.get('row')}"
    place = f"{row}, generation {rollout.get('generation')}"
    return {
        "turns": turns, "prompt": prompt, "acts": acts, "parts": parts, "reward": rollout.get("reward"),
        "track": track, "place": place,
    }  # fmt: skip


def _rows_of(entry: Mapping[str, Any]) -> str:
    """Which rows the fixed prompts of a track are."""
    rows = entry.get("rows")
    if not isinstance(rows, Mapping):
        return "Rows of the training data."  # a run of an older version
    track = f"{entry['track']}: rows" if entry["track"] else "Rows"
    seen = "the training data" if rows.get("in_training") else "which training does not see"
    return f"{track} of {rows.get('source')}, {seen}."


def _sample_grids(run: RunData, images: PageImages) -> list[tuple[str, PageImage]]:
    files = sorted((run.path / "samples").glob("step_*.png"))
    chosen = [files[n] for n in evenly(range(len(files)), 8)]
    return [(file.stem.replace("_", " "), shown) for file in chosen if (shown := images.add(file, 1000))]


def _facts(run: RunData) -> list[tuple[str, str]]:
    """Key figures: label and value."""
    done, planned = run.steps_done, run.steps_planned
    shown = f"{done}" if planned in (None, done) else f"{done} of at most {planned}"
    facts = [("steps", "none, evaluated only" if run.summary and not run.metrics else shown)]
    seconds = run.metrics[-1].get("seconds") if run.metrics else None
    if isinstance(seconds, int | float):
        facts.append(("training time", duration(seconds)))
    for key in dict.fromkeys(key for line in run.metrics for key in line if TOTAL.fullmatch(key)):
        rewards = [line[key] for line in run.metrics if isinstance(line.get(key), int | float)]
        few = max(1, min(10, len(rewards) // 2))
        ends = [sum(part) / len(part) for part in (rewards[:few], rewards[-few:])] if rewards else []
        place = key.replace("/reward", " reward")
        label = f"{place}, first and last {few} steps" if few > 1 else f"{place}, first and last step"
        facts.append((label, " → ".join(f"{end:.3f}" for end in ends)))
    speed = run.summary.get("images_per_second")
    if speed:
        facts.append(("images per second", number(float(speed))))
    seed = (run.recipe.get("run") or {}).get("seed")
    facts.append(("seed", "" if seed is None else str(seed)))
    facts.append(("motet", describe_versions(run.versions, "motet")))
    return [(label, value) for label, value in facts if value]


def duration(seconds: float) -> str:
    """`4.5 s`, `45 s`, `6.2 min`, `3.1 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _warning(line: Mapping[str, Any]) -> str:
    step = line.get("step")
    place = f"step {step + 1}: " if isinstance(step, int) else ""
    return f"{place}{line.get('message', '')}"


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", without_passwords(text))


def _notes(run: RunData, view: RunView, images: PageImages) -> list[str]:
    """What the page leaves out."""
    notes = [f"Not readable: {text}." for text in run.unread]
    for shown, there, what in (
        (view.rollouts, run.rollouts, "rollouts"),
        (view.prompts, run.prompts, "fixed prompts"),
    ):
        missing = len({entry["step"] for entry in there}) - len(shown)
        if missing > 0:
            notes.append(f"The {what} of {missing} further steps are in the run folder.")
    if images.left_out:
        notes.append(f"{images.left_out} images are left out to keep the page small; they are in the run folder.")
    if images.unreadable:
        notes.append(f"{images.unreadable} image files are not readable.")
    return notes
