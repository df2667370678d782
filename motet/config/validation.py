"""Cross-field validation of recipes. One small function per rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import inf, isfinite
from operator import attrgetter
from typing import Any, cast

from motet.config.algorithm_validation import ALGORITHM_CHECKS, Check
from motet.config.choice import Choice
from motet.config.keys import show
from motet.config.options import option_problems
from motet.config.problem import Problem
from motet.config.sampling import WINDOW_SCHEDULES
from motet.config.schema import (
    HUB_OPTIONS,
    LONGEST_NAME,
    MIXTURE,
    ON_FAILURE,
    SUITES,
    LoraConfig,
    PolicyConfig,
    Recipe,
    RewardConfig,
    TrackConfig,
)
from motet.config.section import Section
from motet.core.registry import is_object_path, registry


def contradictions(recipe: Recipe) -> list[Problem]:
    """Every contradiction of a recipe."""
    return [problem for check in CHECKS for problem in check(recipe)]


def unused_keys(recipe: Recipe) -> dict[str, Problem]:
    """Keys without effect under the other settings: rejected where given, left out where a recipe is written."""
    unused: list[Problem] = []
    for kind, settings in recipe.sampling.kinds().items():
        unused += settings.unused(f"sampling.{kind}")
    for key in _adapters(recipe.policy):
        named = [part for part in recipe.policy.train if part in _ADAPTED[key]]
        if named:
            text = f"lists {named[0]}, which {key} adapts."
            unused.append(Problem("policy.train", text, f"list other components ([]: none), or remove {key}."))
    if recipe.tracks:
        for key in ("scenario", "data", "rewards", "run.prompts_per_step"):
            fix = f"move it into tracks.{next(iter(recipe.tracks))}."
            unused.append(Problem(key, "has no effect beside tracks, which have their own.", fix))
    else:
        unused.append(Problem("tracks", "is empty.", "name tracks, or remove it."))
    if len(recipe.tracks) < 2:
        text = "has no effect without two tracks to alternate between."
        unused.append(Problem("run.steps_per_track", text, "remove it, or add tracks."))
    return {problem.key: problem for problem in unused}


def _unused_but_given(recipe: Recipe) -> Iterator[Problem]:
    for key, problem in unused_keys(recipe).items():
        section, _, name = key.rpartition(".")
        if name in (attrgetter(section)(recipe) if section else recipe).model_fields_set:
            yield problem


# --- policy and data


_ADAPTED = {"policy.lora": ("language_model", "lm_head"), "policy.diffusion.lora": ("transformer",)}
"""Components that an adapter trains instead of."""


def _adapters(policy: PolicyConfig) -> dict[str, LoraConfig]:
    """The requested adapters, by their keys."""
    asked = {"policy.lora": policy.lora, "policy.diffusion.lora": policy.diffusion and policy.diffusion.lora}
    return {key: lora for key, lora in asked.items() if lora is not None}


def _policy(recipe: Recipe) -> Iterator[Problem]:
    policy = recipe.policy
    if not policy.path.strip():
        yield Problem("policy.path", "is empty; expected a checkpoint folder or a hub id.", "name the model to train.")
    adapters = _adapters(policy)
    if not policy.train and not adapters:
        yield Problem("policy.train", "is empty, so nothing would train.", "name components, or remove the key.")
    for key, lora in adapters.items():
        if not lora.target_modules:
            text = "is empty, so nothing would train."
            yield Problem(f"{key}.target_modules", text, "name layers, or remove the key.")
    if policy.device == "gpu":
        yield Problem("policy.device", "'gpu' is not a torch device.", "write cuda (or cuda:0, mps, cpu, auto).")


def _tracks(recipe: Recipe) -> Iterator[tuple[str, TrackConfig]]:
    """Every track with the prefix of its keys: empty for a single-track recipe."""
    for name, track in recipe.resolved_tracks().items():
        yield (f"tracks.{name}." if recipe.tracks else ""), track


def _track_names(recipe: Recipe) -> Iterator[Problem]:
    for name in recipe.tracks:
        if not name.isidentifier():
            text = f"{name!r} does not fit: it is part of file names and of metrics."
            yield Problem(f"tracks.{name}", text, "use letters, digits and underscores.")
        elif len(name.encode()) > LONGEST_NAME:
            text = f"a name of {len(name)} characters is too long: it is part of file names."
            yield Problem(f"tracks.{show(name)}", text, f"use at most {LONGEST_NAME}.")


def _shapes_data(recipe: Recipe) -> Iterator[Problem]:
    for prefix, track in _tracks(recipe):
        data, key = track.data, f"{prefix}data"
        if data.source == MIXTURE:
            continue
        if data.source != "shapes":
            unknown = set(data.options) - set(HUB_OPTIONS)  # whether it is on the hub shows when it is opened
            if unknown and not is_object_path(data.source) and registry("data").get(data.source) is None:
                text = f"are options of the shapes world, but {key}.source is '{data.source}'."
                yield Problem(f"{key}.options", text, f"remove {key}.options, or set {key}.source to shapes.")
            continue
        splits = ["train", "test", *(["only_drawn", "only_asked"] if data.options.get("world") == "large" else [])]
        if data.split not in (*splits, "held_out"):
            text = f"the shapes world has no split '{data.split}'; expected {', '.join(splits)} or held_out."
            yield Problem(f"{key}.split", text, f"set {key}.split to train.")
        elif data.split != "train" and recipe.eval.suite.name != "none":
            text = f"is '{data.split}', on which eval.suite {recipe.eval.suite} evaluates; training would see the test."
            yield Problem(f"{key}.split", text, f"set {key}.split to train, or eval.suite to none.")


# --- scenario and rewards


def _names(recipe: Recipe) -> Iterator[Problem]:
    named: list[tuple[str, str]] = []
    for prefix, track in _tracks(recipe):
        named.append((f"{prefix}scenario", track.scenario.name))
        named += [(f"{prefix}rewards.{place}.name", reward.name) for place, reward in enumerate(track.rewards)]
    for key, name in named:
        if not name.strip():
            yield Problem(key, "is empty.", "give a built-in name, or a path package.module:name.")
        elif "." in name and ":" not in name:
            meant = ":".join(name.rsplit(".", 1))
            yield Problem(key, f"{name!r} lacks the colon of package.module:name.", f"write {meant}.")


def _rewards(recipe: Recipe) -> Iterator[Problem]:
    for prefix, track in _tracks(recipe):
        yield from _rewards_of(track.rewards, f"{prefix}rewards")


def _rewards_of(rewards: Sequence[RewardConfig], section: str) -> Iterator[Problem]:
    seen: list[tuple[str, frozenset[str] | None, dict[str, Any]]] = []
    for place, reward in enumerate(rewards):
        key = f"{section}.{place}"
        if reward.acts is not None and not reward.acts:
            text = "is empty, so the reward would apply to no act."
            yield Problem(f"{key}.acts", text, "name acts; without the key it applies to all.")
        if reward.acts is not None and len(set(reward.acts)) < len(reward.acts):
            yield Problem(f"{key}.acts", f"names an act twice: {', '.join(reward.acts)}.", "name each act once.")
        yield from _built_in_choice(reward.on_failure, ON_FAILURE, f"{key}.on_failure")
        identity = (reward.name, None if reward.acts is None else frozenset(reward.acts), reward.options)
        if identity in seen:
            text = f"'{reward.name}' is already {section}.{seen.index(identity)}, for the same acts."
            yield Problem(key, text, "give one of them the sum of the weights, and remove the other.")
        seen.append(identity)
    if rewards and not any(reward.weight for reward in rewards):
        yield Problem(section, "all weights are 0, so nothing is rewarded.", "give one reward a weight (default 1).")


def _built_in_choice(choice: Choice, known: Mapping[str, type[Section]], key: str) -> Iterator[Problem]:
    """What is wrong with a choice among built-in names only."""
    settings = known.get(choice.name)
    if settings is not None:
        yield from option_problems(choice, settings, key)
    else:
        yield Problem(key, f"'{choice}' does not fit; expected one of {', '.join(known)}.", "write one of them.")


# --- sampling, optimizer, evaluation


def _sampling(recipe: Recipe) -> Iterator[Problem]:
    for kind, settings in recipe.sampling.kinds().items():
        yield from settings.problems(f"sampling.{kind}")
    window, key = recipe.sampling.denoising.sde_window, "sampling.denoising.sde_window.schedule"
    if window is not None:
        yield from _built_in_choice(window.schedule, WINDOW_SCHEDULES, key)


def _optimizer(recipe: Recipe) -> Iterator[Problem]:
    optimizer = recipe.optimizer
    for place, beta in enumerate(optimizer.betas):
        if isfinite(beta) and not 0 <= beta < 1:
            yield Problem(
                f"optimizer.betas.{place}", f"{beta:g} does not fit; expected >= 0 and < 1.", "0.9, 0.999 is usual."
            )
    if 1 < optimizer.learning_rate < inf:
        text = f"{optimizer.learning_rate:g} is almost certainly a typo; expected at most 1."
        yield Problem("optimizer.learning_rate", text, "check the exponent's sign: 2e-4, not 2e4.")


def _eval(recipe: Recipe) -> Iterator[Problem]:
    suite, given = recipe.eval.suite, recipe.eval.model_fields_set
    if given and "suite" not in given:
        names = ", ".join(f"eval.{name}" for name in sorted(given))
        yield Problem("eval.suite", f"missing beside {names}; nothing would be evaluated.", "add eval.suite: shapes.")
    if suite.name == "none" and recipe.eval.every is not None:
        text = f"is {recipe.eval.every}, which has no effect while eval.suite is none."
        yield Problem("eval.every", text, "set it to null, or set eval.suite.")
    settings = SUITES.get(suite.name)
    found = None if settings is not None or is_object_path(suite.name) else registry("suite").get(suite.name)
    settings = settings or getattr(found, "Settings", None)
    if settings is not None:
        yield from option_problems(suite, settings, "eval.suite")
    elif found is None and not is_object_path(suite.name):
        names = list(dict.fromkeys([*SUITES, *registry("suite").entries]))
        close = get_close_matches(suite.name, names, n=1)
        fix = f"write {close[0]}." if close else "write one of them, or a path package.module:suite."
        yield Problem("eval.suite", f"'{suite}' is not a suite; expected one of {', '.join(names)}.", fix)


def _sft(recipe: Recipe) -> Iterator[Problem]:
    shares = recipe.sft.model_dump()
    if sum(shares.values()) > 1:
        total = " + ".join(f"{value:g}" for value in shares.values())
        text = f"{total} of the edits are more than all of them."
        yield Problem(f"sft.{max(shares, key=shares.__getitem__)}", text, f"lower {', '.join(shares)}.")


def _finite(recipe: Recipe) -> Iterator[Problem]:
    free: dict[str, Any] = {"data": {"options": True}, "rewards": {"__all__": {"options": True}}}
    free["tracks"] = {"__all__": dict(free)}
    for key, value in _leaves(recipe.model_dump(exclude=free), ""):
        if isinstance(value, float) and not isfinite(value):
            yield Problem(key, f"{value} does not fit; expected a finite number.", "write a finite number.")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        pairs = (
            cast("dict[str, Any]", value).items() if isinstance(value, dict) else enumerate(cast("list[Any]", value))
        )
        for name, inner in pairs:
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


CHECKS: tuple[Check, ...] = (
    _unused_but_given,
    _finite,
    _policy,
    _track_names,
    _shapes_data,
    _names,
    _rewards,
    *ALGORITHM_CHECKS,
    _sampling,
    _optimizer,
    _eval,
    _sft,
)
