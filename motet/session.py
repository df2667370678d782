"""From a recipe to a run that is ready to go: everything built, and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from motet.config import DROPOUTS, Recipe
from motet.credit import check_credit
from motet.data import Cursor, Rows, open_rows
from motet.errors import CheckpointError, ConfigError, MotetError
from motet.learner import Learner
from motet.numerics.flow.windows import progressive_start, random_start, window_starts
from motet.policies import load_policy
from motet.policies.noise import uniforms
from motet.protocols import LearningPolicy, Policy
from motet.rewards import BoundReward, bind_policy, resolve_all
from motet.scenarios import Scenario, resolve_scenario
from motet.trajectory import ActKind, Sampling


@dataclass(frozen=True, eq=False)
class Track:
    """One thing that a run practises. `rewards` are empty in supervised training, `targets` in reinforcement learning.

    `number` tells the noise of tracks apart that practise on the same rows.
    """

    number: int
    name: str
    scenario: Scenario
    rewards: list[BoundReward]
    cursor: Cursor
    prompts: int
    targets: dict[str, str]


@dataclass(frozen=True, eq=False)
class Session:
    """What a recipe names."""

    recipe: Recipe
    policy: LearningPolicy
    tracks: tuple[Track, ...]
    learner: Learner

    def practised(self, step: int) -> Sequence[Track]:
        """The tracks of a step: all of them, or the one whose turn it is."""
        turn = self.recipe.run.turn
        return self.tracks if turn is None else [self.tracks[step // turn % len(self.tracks)]]

    def cursors(self) -> dict[str, Any]:
        """JSON-able: where every track stands in its data."""
        return {track.name: track.cursor.state_dict() for track in self.tracks}

    def move_cursors(self, state: Mapping[str, Any]) -> None:
        """Go on where `cursors()` stood. Raises CheckpointError when the tracks or their data are others."""
        names = [track.name for track in self.tracks]
        if sorted(state) != sorted(names):
            raise CheckpointError(
                f"The checkpoint has the tracks {sorted(state)}, this run has {sorted(names)}.",
                fix="resume with the run's own recipe, or start anew.",
            )
        for track in self.tracks:
            track.cursor.load_state_dict(state[track.name])


def prepare(recipe: Recipe) -> Session:
    """Build a run of reinforcement learning; what contradicts itself is refused here, before the first sample."""
    algorithm, tracks = recipe.algorithm, rewarded_tracks(recipe)
    if recipe.eval.suite == "rewards":
        for track in tracks:
            held_back_rows(recipe, track)
    policy = _load(recipe)
    require_suite(recipe.eval.suite, policy)
    with_kl = algorithm.beta or any(own.beta for own in algorithm.per_kind.values())
    if with_kl or any(reward.uses_reference for track in tracks for reward in track.rewards):
        policy.freeze_reference()
    tracks = [replace(track, rewards=bind_policy(track.rewards, policy)) for track in tracks]
    updates = recipe.run.steps * algorithm.num_iterations * algorithm.num_minibatches
    learner = Learner(policy, recipe.optimizer, updates, trained_kinds(tracks, policy))
    return Session(recipe, policy, tuple(tracks), learner)


def rewarded_tracks(recipe: Recipe) -> list[Track]:
    """What a run of reinforcement learning practises: scenarios, rewards and data, opened and checked, without weights.

    Raises ConfigError where they do not fit each other.
    """
    for name in DROPOUTS:
        if getattr(recipe.algorithm, name):
            raise ConfigError(
                f"algorithm.{name}={getattr(recipe.algorithm, name)} belongs to supervised training: a rollout that "
                "does not see what it is asked cannot be judged by it.",
                fix="remove it, or use `motet sft`.",
            )
    tracks = []
    for number, (name, config) in enumerate(recipe.practised().items()):
        if not config.rewards:
            where = f"The track {name!r}" if name else "The recipe"
            raise ConfigError(f"{where} names no rewards.", fix="add rewards, or use `motet sft` to imitate data.")
        scenario = resolve_scenario(config.scenario).with_options(config.scenario_options)
        rows = open_rows(config.data, scenario.columns, seed=recipe.run.seed)
        rewards = resolve_all(config.rewards, scenario.acts, rows.columns)
        check_credit(scenario, rewards)
        cursor = Cursor(rows, recipe.run.seed)
        tracks.append(Track(number, name, scenario, rewards, cursor, config.prompts_per_step, {}))
    return tracks


def held_back_rows(recipe: Recipe, track: Track) -> Rows:
    """The rows on which the suite `rewards` plays a track: all of `eval.split`.

    Raises ConfigError or DataError, naming that key, where the data has none.
    """
    split = recipe.eval.split
    data = recipe.practised()[track.name].data.model_copy(update={"split": split, "size": None})
    try:
        return open_rows(data, track.scenario.columns, seed=recipe.eval.seed)
    except MotetError as error:
        raise type(error)(
            f"eval.suite=rewards measures on eval.split={split!r}: {error.problem}",
            fix="set eval.split to a split of the data that training does not see, or eval.suite to none.",
        ) from error


def prepare_measurement(recipe: Recipe) -> Session:
    """Build a run that only measures: a recipe may do without rewards if its suite does not ask for them."""
    if recipe.eval.suite == "rewards":
        return prepare(recipe)
    policy = _load(recipe)
    require_suite(recipe.eval.suite, policy)
    return Session(recipe, policy, (), Learner(policy, recipe.optimizer, recipe.run.steps))


def prepare_supervised(recipe: Recipe) -> Session:
    """Build a supervised run. `data.targets` says which column demonstrates each act of the scenario."""
    tracks = demonstrated_tracks(recipe)
    policy = _load(recipe)
    require_suite(recipe.eval.suite, policy)
    for name in ("source_dropout", "joint_dropout"):
        if getattr(recipe.algorithm, name) and "denoising" not in policy.kinds:
            raise ConfigError(
                f"algorithm.{name}={getattr(recipe.algorithm, name)} withholds source pictures from denoising, which "
                "this policy does not do.",
                fix="remove it: of image tokens prompt_dropout withholds all.",
            )
    kinds = trained_kinds(tracks, policy) - {k for k, own in recipe.algorithm.per_kind.items() if own.weight == 0}
    return Session(recipe, policy, tuple(tracks), Learner(policy, recipe.optimizer, recipe.run.steps, kinds))


def demonstrated_tracks(recipe: Recipe) -> list[Track]:
    """What a supervised run practises: scenarios, and data with their targets, opened and checked, without weights.

    Raises ConfigError where they do not fit each other.
    """
    tracks = []
    for number, (name, config) in enumerate(recipe.practised().items()):
        key = f"tracks.{name}." if name else ""
        if config.rewards:
            raise ConfigError(
                "Supervised training knows no rewards.", fix=f"remove `{key}rewards`, or use `motet train`."
            )
        scenario = resolve_scenario(config.scenario).with_options(config.scenario_options)
        targets = config.data.targets
        for act in scenario.acts:
            if act not in targets:
                raise ConfigError(
                    f"{key}data.targets names no column for the act {act!r} of scenario {scenario.name!r}.",
                    fix=f"set {key}data.targets.{act}=COLUMN.",
                )
        pictures = [targets[act] for act, kind in scenario.acts.items() if kind != "text"]
        needed = (*scenario.columns, *targets.values())
        rows = open_rows(config.data, needed, seed=recipe.run.seed, picture_columns=pictures)
        cursor = Cursor(rows, recipe.run.seed)
        tracks.append(Track(number, name, scenario, [], cursor, config.prompts_per_step, targets))
    return tracks


def require_suite(suite: str, policy: Policy) -> None:
    """Raise ConfigError when the policy cannot play the suite: the shapes suite draws and writes."""
    if suite == "shapes" and not ("text" in policy.kinds and policy.kinds & {"image", "denoising"}):
        raise ConfigError(
            f"eval.suite=shapes asks for pictures and texts, but the policy performs only: "
            f"{', '.join(sorted(policy.kinds))}.",
            fix="set eval.suite to rewards or none, or choose a policy that both draws and writes.",
        )


def trained_kinds(tracks: Sequence[Track], policy: LearningPolicy) -> set[ActKind]:
    """The kinds of the acts that the tracks may train, as the policy performs them."""
    scenarios = [track.scenario for track in tracks]
    kinds: set[ActKind | None] = {s.kind_of(name, policy.kinds) for s in scenarios for name in s.acts.keys() - s.frozen}
    return {kind for kind in kinds if kind is not None}


def samplings_of(recipe: Recipe, step: int = 0) -> dict[ActKind, Sampling]:
    """The recipe's sampling of each kind of act, at a step: a window of stochastic steps may move."""
    text, image, flow = recipe.text, recipe.image, recipe.denoising
    return {
        "text": Sampling(text.temperature, text.top_k, text.top_p, max_tokens=text.max_tokens),
        "image": Sampling(
            image.temperature,
            image.top_k,
            image.top_p,
            image.guidance,
            image.guidance_scale if image.guidance != "none" else 1.0,
        ),
        "denoising": Sampling(
            guidance=flow.guidance,
            guidance_scale=flow.guidance_scale if flow.guidance != "none" else 1.0,
            image_guidance_scale=flow.image_guidance_scale,
            num_steps=flow.num_steps,
            noise_level=flow.noise_level,
            sde_type=flow.sde_type,
            sde_window=_window(recipe, step),
            shift=flow.shift,
        ),
    }


def _window(recipe: Recipe, step: int) -> tuple[int, int] | None:
    """First step and size of the window of stochastic steps."""
    window = recipe.denoising.sde_window
    if window is None:
        return None
    starts = window_starts(recipe.denoising.num_steps - 1, window.size, window.stride)
    if window.moves == "progressive":
        return progressive_start(step, starts, interval=window.interval), window.size
    if window.moves == "random":
        return random_start(float(uniforms([(recipe.run.seed, step)], 1)), starts), window.size
    return 0, window.size


def _load(recipe: Recipe) -> LearningPolicy:
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.run.seed)  # new adapters begin at random
    return load_policy(recipe.policy.path, recipe.policy)
