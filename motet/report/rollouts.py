"""Rollouts of a step for a person to read: their acts in order, with images, reward parts and advantages.

`rollouts/step_N.json` lists the best and the worst rollouts of a step, `fixed_prompts/step_N.json` one rollout of each
of the same prompts; the images are WebP files beside them, named in the JSON.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image

from motet.core.atomic_files import write_atomic
from motet.core.conversation import ImagePart, Message, Text
from motet.core.errors import RunFolderError
from motet.core.protocols import WeightedReward
from motet.core.trajectory import ActWithAdvantage, Group, ImageAct, Scores, TextAct, Trajectory
from motet.report.run_dir import RunFolder

ROLLOUTS, FIXED_PROMPTS = "rollouts", "fixed_prompts"
SHOWN, MAX_SIDE, MAX_CHARACTERS = 3, 256, 6000
"""Best and worst rollouts of a step, longest side of a saved image in pixels, and characters of a saved text."""


@dataclass(frozen=True)
class ShownRollout:
    """A rollout as JSON. `images` are those that its turns name by their position."""

    entry: dict[str, Any]
    images: list[Image.Image]


def show_rollout(trajectory: Trajectory) -> ShownRollout:
    """`turns` in order: what the conversation said to the policy, and the policy's acts; each a text or an image."""
    shown, before, turns = ShownRollout({}, []), list[Message](), list[dict[str, Any]]()
    for number, act in enumerate(trajectory.acts):
        # Later assistant messages are earlier acts; what the context shares with the one before was shown.
        said = [message for message in act.context.messages if number == 0 or message.role != "assistant"]
        earlier = before if number == 0 else [message for message in before if message.role != "assistant"]
        shared = sum(1 for _ in takewhile(lambda pair: _same(*pair), zip(said, earlier, strict=False)))
        for message in said[shared:]:
            turns += _message_turns(message, shown.images)
        before = list(act.context.messages)
        turn: dict[str, Any] = {"by": "policy", "act": act.name, "kind": act.kind, "trained": act.trained}
        if isinstance(act, TextAct):
            turn |= {"text": _cut(act.text), "finished": act.finished}
        elif isinstance(act, ImageAct):
            turn["image"] = _add(shown.images, act.image)
        turns.append(turn)
    shown.entry.update(
        row=trajectory.task.index,
        place=trajectory.task.location,
        generation=trajectory.task.generation_index,
        turns=turns,
    )
    return shown


def best_and_worst(
    group: Group, scores: Scores, rewards: Sequence[WeightedReward], advantages: Sequence[ActWithAdvantage]
) -> list[ShownRollout]:
    """The group's rollouts of the highest and of the lowest reward; one of them if all rewards are equal."""
    totals = {g: _total(scores, g, rewards) for g in group.valid_indices if g not in scores.dropped}
    if not totals:
        return []
    of_act = {id(one.act): one.advantage for one in advantages}
    chosen = dict.fromkeys((max(totals, key=lambda g: totals[g]), min(totals, key=lambda g: totals[g])))
    return [_with_advantages(show_scored(group, g, scores, rewards), group.trajectories[g], of_act) for g in chosen]


def show_scored(group: Group, g: int, scores: Scores, rewards: Sequence[WeightedReward]) -> ShownRollout:
    """Generation `g` of a group with `reward`, the weighted sum, `rewards` and their `weights`.

    Without them if there are no rewards or they dropped it.
    """
    shown = show_rollout(group.trajectories[g])
    if rewards and g not in scores.dropped:
        values = {reward.name: scores.values[reward.name][g] for reward in rewards}
        parts = {name: None if value is None else round(value, 4) for name, value in values.items()}
        weights = {reward.name: reward.weight for reward in rewards}
        shown.entry.update(reward=round(_total(scores, g, rewards), 4), rewards=parts, weights=weights)
    return shown


def _with_advantages(shown: ShownRollout, trajectory: Trajectory, advantages: Mapping[int, float]) -> ShownRollout:
    acts = [turn for turn in shown.entry["turns"] if turn["by"] == "policy"]
    for turn, act in zip(acts, trajectory.acts, strict=True):
        if id(act) in advantages:
            turn["advantage"] = round(advantages[id(act)], 4)
    return shown


def save_best_and_worst(folder: RunFolder, step: int, shown: Sequence[ShownRollout], track: str = "") -> None:
    """Write the best and the worst of a step's rollouts, no more than one of each group at either end.

    A failed write (full disk) is a warning; the run goes on.
    """
    ranked = sorted(shown, key=lambda one: -one.entry["reward"])
    best = _one_per_row(ranked)[:SHOWN]
    worst = _one_per_row([one for one in reversed(ranked) if all(one is not other for other in best)])[:SHOWN]
    save_rollouts(folder, ROLLOUTS, step, {"best": best, "worst": worst}, track)


def save_rollouts(
    folder: RunFolder,
    place: str,
    step: int,
    lists: Mapping[str, Sequence[ShownRollout]],
    track: str = "",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write lists of rollouts to `PLACE/step_N[_TRACK].json`, and their images. A failed write is a warning.

    `about` is written beside the lists.
    """
    name = f"{place}/step_{step:06d}" + (f"_{track}" if track else "")
    try:
        (folder.path / place).mkdir(exist_ok=True)
        content: dict[str, Any] = {"step": step, "track": track, **(about or {})}
        number = 0
        for key, rollouts in lists.items():
            content[key] = []
            for rollout in rollouts:
                content[key].append(_with_files(rollout, folder.path / f"{name}_{number:02d}"))
                number += 1
        folder.write_text(f"{name}.json", json.dumps(content, ensure_ascii=False) + "\n")
    except (OSError, RunFolderError) as error:
        why = error.problem if isinstance(error, RunFolderError) else f"{error.strerror or error}."
        warnings.warn(f"{str(folder.path / name)!r} is not saved: {why}", stacklevel=2)


def _with_files(shown: ShownRollout, path: Path) -> dict[str, Any]:
    """The entry with the names of its image files, which are written."""
    files = [f"{path.name}_{n}.webp" for n in range(len(shown.images))]
    for file, image in zip(files, shown.images, strict=True):
        write_atomic(path.with_name(file), encode_image(image))
    turns = [t | {"image": files[t["image"]]} if "image" in t else t for t in shown.entry["turns"]]
    return shown.entry | {"turns": turns}


def encode_image(image: Image.Image) -> bytes:
    """WebP bytes: of small images exactly their pixels, of larger ones a thumbnail."""
    encoded, image = io.BytesIO(), image.convert("RGB")
    is_small = max(image.size) <= MAX_SIDE // 2
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    image.save(encoded, "WEBP", lossless=is_small, quality=80)
    return encoded.getvalue()


def _message_turns(message: Message, images: list[Image.Image]) -> list[dict[str, Any]]:
    return [
        {"by": message.role, "image": _add(images, part.image)}
        if isinstance(part, ImagePart)
        else {"by": message.role, "text": _cut(part.text)}
        for part in message.parts
    ]


def _same(one: Message, other: Message) -> bool:
    def key(message: Message) -> list[str | int]:
        return [part.text if isinstance(part, Text) else id(part.image) for part in message.parts]

    return one is other or (one.role == other.role and key(one) == key(other))


def _add(images: list[Image.Image], image: Image.Image) -> int:
    small = image.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE))  # of several processes, each sends its images to the main one
    images.append(small)
    return len(images) - 1


def _cut(text: str) -> str:
    dropped = len(text) - MAX_CHARACTERS
    return text if dropped <= 0 else f"{text[:MAX_CHARACTERS]} [{dropped} more characters]"


def _total(scores: Scores, g: int, rewards: Sequence[WeightedReward]) -> float:
    return sum(reward.weight * (scores.values[reward.name][g] or 0.0) for reward in rewards)


def _one_per_row(ranked: Sequence[ShownRollout]) -> list[ShownRollout]:
    """The first of each row, in their order."""
    first: dict[Any, ShownRollout] = {}
    for one in ranked:
        first.setdefault(one.entry["row"], one)
    return list(first.values())
