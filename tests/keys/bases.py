"""The recipes that keys are changed in: tiny models of the real classes, a step or two on a few rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.policies import tiny_pipelines, unified
from tests.policies.vlms import save_tiny
from tests.runs import REWARDS, WORLD, mapping, save_tiny_janus

Content = dict[str, Any]
CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "janus": save_tiny_janus,
    "janus_2": lambda folder: save_tiny_janus(folder, seed=1),
    "unified": unified.save,
    "vlm": lambda folder: save_tiny(folder, "qwen2_5_vl", max_positions=1024),
    "flux": lambda folder: tiny_pipelines.write("flux", folder),
    "sd3": lambda folder: tiny_pipelines.write("sd3", folder),
}
"""How each tiny checkpoint is saved. `@NAME` in a recipe below stands for its folder."""
RUN = {"steps": 2, "prompts_per_step": 2, "log_samples_every": 1}
OF_A_TRACK = ("scenario", "data", "rewards")
HEIGHT, WIDTH = tiny_pipelines.SIZES["flux"]


def janus() -> Content:
    """A joint sample of the tiny Janus: text tokens and image tokens, two rewards."""
    return mapping(Path("@janus"), run=RUN)


def turns() -> Content:
    """The same as a track, beside another one of questions."""
    content = in_a_track(janus())
    other = {"scenario": "answer", "data": {"source": "shapes", "options": dict(WORLD)}, "prompts_per_step": 1}
    content["tracks"]["other"] = other | {"rewards": [{"name": f"{REWARDS}spacious"}]}
    return content


def in_a_track(content: Content) -> Content:
    """A recipe as its own only track, TRACK."""
    track = {key: content.pop(key) for key in OF_A_TRACK if key in content}
    track["prompts_per_step"] = content["run"].pop("prompts_per_step")
    return content | {"tracks": {"TRACK": track}}


def sft() -> Content:
    """The same for SFT."""
    content = janus()
    content["data"]["targets"] = {"image": "target", "answer": "solution"}
    return {key: value for key, value in content.items() if key not in ("rewards", "algorithm")}


def flow() -> Content:
    """Drawing by denoising with the tiny unified model."""
    return {
        "policy": {"path": "@unified", "device": "cpu", "train": ["queries", "connector", "transformer"]},
        "scenario": "text_to_image",
        "data": {"source": "shapes", "options": dict(WORLD)},
        "rewards": [{"name": f"{REWARDS}reddish"}],
        "algorithm": {"num_generations": 2},
        "sampling": {"denoising": {"num_steps": 4}},
        "optimizer": {"learning_rate": 0.003},
        "run": dict(RUN),
    }


def edit() -> Content:
    """Editing a picture by denoising."""
    return flow() | {"scenario": "edit", "data": {"source": "@edits"}}


def edit_sft() -> Content:
    """Edits shown instead of rewarded."""
    content = edit()
    content["data"]["targets"] = {"edit": "edited"}
    content["run"] |= {"prompts_per_step": 3}
    return {key: value for key, value in content.items() if key not in ("rewards", "algorithm")}


def reading() -> Content:
    """Questions about pictures, answered by the tiny Qwen-VL."""
    return {
        "policy": {"path": "@vlm", "device": "cpu"},
        "scenario": "answer",
        "data": {"source": "@questions"},
        "rewards": [{"name": f"{REWARDS}spacious"}],
        "algorithm": {"num_generations": 2},
        "sampling": {"text": {"max_tokens": 6}},
        "run": dict(RUN),
    }


def experts() -> Content:
    """The tiny Qwen-VL beside a tiny FLUX, which draws."""
    content = flow()
    content["policy"] = {"path": "@vlm", "device": "cpu", "train": ["transformer"]}
    content["policy"]["diffusion"] = {"path": "@flux", "size": [HEIGHT, WIDTH]}
    content["sampling"] = {"denoising": {"num_steps": 3}}
    content["run"] |= {"steps": 1}
    return content


BASES: dict[str, Callable[[], Content]] = {
    made.__name__: made for made in (janus, turns, sft, flow, edit, edit_sft, reading, experts)
}


def _section(place: Content, name: str) -> Any:
    """What lies at a name, as a mapping or a list; a named choice as its name and its options."""
    inside = place.setdefault(name, {"name": "grpo"} if name in ("loss", "advantage") else {})
    if isinstance(inside, str):
        inside = place[name] = {"name": inside}
    return inside


class Bench:
    """The tiny checkpoints and data files of these recipes, each saved when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recipe(self, base: str, changes: dict[str, Any], track: bool = False) -> Content:
        """A base as a recipe's mapping, with dotted keys changed and every `@NAME` the path that it stands for.

        `track`: as its own only track, after the changes.
        """
        content = BASES[base]()
        for key, value in changes.items():
            *sections, last = key.split(".")
            place: Any = content
            for name in sections:
                place = place[int(name)] if isinstance(place, list) else _section(place, name)
            place[int(last) if isinstance(place, list) else last] = copy.deepcopy(value)
        if track:
            content = in_a_track(content)
        return yaml.safe_load(self.placed(yaml.safe_dump(content)))

    def placed(self, text: str) -> str:
        """The text with the path of every `@NAME` in its place."""
        names = [*CHECKPOINTS, *FILES]
        for name in sorted(names, key=len, reverse=True):
            if f"@{name}" in text:
                text = text.replace(f"@{name}", str(self.path(name)))
        return text

    def path(self, name: str) -> Path:
        """Where a checkpoint or a data file lies."""
        path = self.folder / (name if name in CHECKPOINTS else f"{name}.jsonl")
        if not path.exists():
            (CHECKPOINTS.get(name) or FILES[name])(path)
        return path


def edits(path: Path) -> None:
    """Red pictures to make blue."""
    _write(path, {"image": "red.png", "instruction": "make it blue", "edited": "blue.png", "prompt": "a thing"})


def questions(path: Path) -> None:
    """A question about a picture."""
    _write(path, {"image": "red.png", "question": "what?", "answer": "red"})


def riddles(path: Path) -> None:
    """Another one about the same picture."""
    _write(path, {"image": "red.png", "question": "a star?", "answer": "no"})


def hints(path: Path) -> None:
    """A third one."""
    _write(path, {"image": "blue.png", "question": "left of?", "answer": "it"})


def _write(path: Path, row: dict[str, str]) -> None:
    from PIL import Image

    for colour in ("red", "blue"):
        image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
        image.paste(colour, (0, 0, 64, 32))
        image.save(path.parent / f"{colour}.png")
    path.write_text("".join(json.dumps({**row, "number": n}) + "\n" for n in range(6)))


FILES: dict[str, Callable[[Path], None]] = {"edits": edits, "questions": questions, "riddles": riddles, "hints": hints}
