"""From a recipe to a run that is ready to go: everything built, and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from motet.config import DataConfig, Recipe, RewardsSuiteOptions, TrackConfig
from motet.config.options import read_options
from motet.core.errors import CheckpointError, ConfigError, MotetError
from motet.core.protocols import TrainablePolicy
from motet.core.sampling import Sampling
from motet.data import ResumableSampler, Rows, has_splits, is_file, open_rows, warn_unused_images
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.policies.generation.noise import uniforms
from motet.rewards import BoundReward, bind_policy, check_golds, resolve_all
from motet.scenarios import Scenario, resolve_scenario
from motet.training.advantages import check_reward_assignment
from motet.training.losses import check_algorithm, kind_config, resolve_loss, resolve_losses
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.suites import resolve_suite


@dataclass(frozen=True, eq=False)
class Track:
    """One task of multi-task training. Supervised training uses `rewards` only for evaluation, by the suite `rewards`.
    `targets` are the columns of the acts' targets, empty in reinforcement learning, `rejected` those of rejected acts.

    `number` is part of the noise's key, so that tracks on the same rows do not share noise.
    """

    number: int
    name: str
    scenario: Scenario
    rewards: list[BoundReward]
    cursor: ResumableSampler
    prompts: int
    targets: dict[str, str]
    rejected: dict[str, str] = field(default_factory=dict)


PlaceRewards = Callable[[Sequence[Track]], Sequence[Track]]
"""Replaces rewards of tracks by those that are called elsewhere."""


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """What a recipe names."""

    recipe: Recipe
    policy: TrainablePolicy
    tracks: tuple[Track, ...]
    optimizer: PolicyOptimizer

    @property
    def parallel(self) -> Parallel:
        """How the processes of the run share its steps."""
        return self.optimizer.parallel

    @property
    def processes(self) -> Processes:
        """The processes of the run."""
        return self.parallel.processes

    def tracks_at(self, step: int) -> Sequence[Track]:
        """The tracks of a step: all of them, or the one whose turn it is."""
        turn = self.recipe.run.steps_per_track
        return self.tracks if turn is None else [self.tracks[step // turn % len(self.tracks)]]

    def data_state(self) -> dict[str, Any]:
        """JSON-able: where every track stands in its data."""
        return {track.name: track.cursor.state_dict() for track in self.tracks}

    def load_data_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `data_state()` stood. Raises CheckpointError when the tracks or their data are others."""
        names = [track.name for track in self.tracks]
        if sorted(state) != sorted(names):
            raise CheckpointError(
                f"The checkpoint has the tracks {sorted(state)}, this run has {sorted(names)}.",
                fix="resume with the run's own recipe, or start a new run.",
            )
        for track in self.tracks:
            track.cursor.load_state_dict(state[track.name])


def setup_rl(recipe: Recipe, parallel: Parallel | None = None, place_rewards: PlaceRewards = tuple) -> TrainingSetup:
    """Build a run of reinforcement learning; contradictions raise here, before the first sample."""
    tracks, policy = list(place_rewards(build_rl_tracks(recipe))), _load(recipe, parallel)
    optimizer = build_optimizer(recipe, policy, trained_act_kinds(tracks, policy), parallel)
    return TrainingSetup(recipe, policy, tuple(_bound(tracks, policy, optimizer.parallel)), optimizer)


def build_optimizer(
    recipe: Recipe, policy: TrainablePolicy, kinds: Collection[str] = (), parallel: Parallel | None = None
) -> PolicyOptimizer:
    """The optimizer of reinforcement learning; if a loss needs a reference, the policy's present weights become it.

    `kinds` are those of the acts to train, by default all of the policy's. Raises ConfigError where a setting does not
    fit the policy.
    """
    algorithm = recipe.algorithm
    if algorithm.reference_sync is not None and any(".lora_" in name for name in policy.trainable()):
        raise ConfigError(
            "algorithm.reference_sync mixes weights, and the checkpoint's adapter trains in place of weights.",
            fix="remove it, or merge the adapter into its base model (`motet merge`).",
        )
    losses = resolve_losses(recipe, kinds or policy.kinds)
    if any(loss.needs_reference for loss in losses.values()):
        policy.freeze_reference()
    updates = recipe.run.steps * algorithm.num_iterations * algorithm.num_minibatches
    return PolicyOptimizer(policy, recipe.optimizer, updates, kinds, parallel)


def build_rl_tracks(recipe: Recipe) -> list[Track]:
    """The tracks of reinforcement learning: scenarios, rewards and data, opened and checked, without weights.

    Raises ConfigError where they do not fit each other.
    """
    if recipe.sft != type(recipe.sft)():  # a run folder's recipe.yaml states the defaults
        raise ConfigError("The section sft has no effect in `motet train`.", fix="remove it, or use `motet sft`.")
    check_algorithm(recipe.algorithm)
    tracks = []
    for number, (name, config) in enumerate(recipe.resolved_tracks().items()):
        _require_rewards(name, config, "add rewards, or use `motet sft` to imitate data.")
        scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
        rows = open_rows(config.data, scenario.columns, seed=recipe.run.seed)
        rewards = resolve_all(config.rewards, scenario.acts, rows.columns)
        check_golds(rewards, rows.texts())
        check_reward_assignment(scenario, rewards)
        warn_unused_images(rows, _read_by_name(scenario, rewards))
        cursor = ResumableSampler(rows, recipe.run.seed)
        tracks.append(Track(number, name, scenario, rewards, cursor, config.prompts_per_step, {}))
    _check_eval_rows(recipe, tracks)
    return tracks


def _read_by_name(scenario: Scenario, rewards: Sequence[BoundReward]) -> set[str]:
    """The columns that a scenario and rewards name; a reward may take all others too."""
    return {
        *scenario.columns,
        *(name for reward in rewards for name in (*reward.required_columns, *(reward.accepts or ()))),
    }


def eval_rows(recipe: Recipe, track: Track) -> Rows:
    """The rows on which the suite `rewards` evaluates a track: all of its `split`, of its `data` if that is given.

    They were checked when the session was prepared. Raises ConfigError or DataError where there are none.
    """
    return _open_eval_rows(recipe, recipe.resolved_tracks()[track.name].data, track.scenario, check=False)


def _open_eval_rows(recipe: Recipe, data: DataConfig, scenario: Scenario, *, check: bool = True) -> Rows:
    own = eval_data_config(recipe, data)
    try:
        return open_rows(own, scenario.columns, seed=recipe.eval.seed, check=check)
    except MotetError as error:
        suite = _rewards_suite(recipe)
        where = f"eval.suite.split={own.split!r}" if suite.data is None else f"eval.suite.data={suite.data!r}"
        raise type(error)(
            f"eval.suite=rewards evaluates on {where}: {error.problem}",
            fix="set eval.suite.data to a file that training does not see, or eval.suite.split to such a split; or "
            "eval.suite to none.",
        ) from error


def _rewards_suite(recipe: Recipe) -> RewardsSuiteOptions:
    return read_options(recipe.eval.suite, RewardsSuiteOptions, "eval.suite")


def eval_data_config(recipe: Recipe, data: DataConfig) -> DataConfig:
    """The data that the suite `rewards` evaluates on, for a track that trains on `data`."""
    settings = _rewards_suite(recipe)
    if settings.data is None:
        return data.model_copy(update={"split": settings.split, "size": None})
    split = settings.split if has_splits(settings.data) else "train"
    options = data.options if settings.data == data.source else {}
    return data.model_copy(update={"source": settings.data, "split": split, "size": None, "options": options})


def _check_eval_rows(recipe: Recipe, tracks: Sequence[Track]) -> None:
    """Raise where the suite `rewards` cannot evaluate a training run: it has no rows, or those of training."""
    if not needs_rewards(recipe):
        return
    for track in tracks:
        data = recipe.resolved_tracks()[track.name].data
        own = eval_data_config(recipe, data)
        if (_place(own.source), own.split) == (_place(data.source), data.split):
            raise ConfigError(
                f"eval.suite=rewards would evaluate on the rows that training sees, split {own.split!r} of "
                f"{own.source!r}.",
                fix="set eval.suite.data to another file, or eval.suite.split to another split.",
            )
        check_golds(track.rewards, _open_eval_rows(recipe, data, track.scenario).texts())


def _place(source: str) -> str:
    """Two ways of writing a file's path are one."""
    return str(Path(source).expanduser().resolve()) if is_file(source) else source


def setup_eval(recipe: Recipe, parallel: Parallel | None = None) -> TrainingSetup:
    """Build a run that only evaluates: without training data, and without rewards if its suite needs none.

    A reward that asks for the reference gets the weights that are evaluated.
    """
    tracks = build_eval_tracks(recipe) if needs_rewards(recipe) else []
    policy = _load(recipe, parallel)
    optimizer = PolicyOptimizer(policy, recipe.optimizer, recipe.run.steps, parallel=parallel)
    return TrainingSetup(recipe, policy, tuple(_bound(tracks, policy, optimizer.parallel)), optimizer)


def build_eval_tracks(recipe: Recipe) -> list[Track]:
    """The tracks of the suite `rewards`: scenarios and rewards on validation rows only."""
    tracks = []
    for number, (name, config) in enumerate(recipe.resolved_tracks().items()):
        _require_rewards(name, config, "add rewards: what the suite `rewards` evaluates with.")
        scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
        rows = _open_eval_rows(recipe, config.data, scenario)
        rewards = resolve_all(config.rewards, scenario.acts, rows.columns)
        check_golds(rewards, rows.texts())
        tracks.append(Track(number, name, scenario, rewards, ResumableSampler(rows, recipe.run.seed), 1, {}))
    return tracks


def _require_rewards(name: str, config: TrackConfig, fix: str) -> None:
    if not config.rewards:
        raise ConfigError(f"{f'The track {name!r}' if name else 'The recipe'} names no rewards.", fix=fix)


def _bound(tracks: Sequence[Track], policy: TrainablePolicy, parallel: Parallel) -> list[Track]:
    """The tracks with rewards that are ready to score this policy, and the reference frozen if any of them asks it."""
    if any(reward.uses_reference for track in tracks for reward in track.rewards):
        policy.freeze_reference()
        parallel.gathers_reference = True
    return [replace(track, rewards=bind_policy(track.rewards, policy)) for track in tracks]


def setup_sft(recipe: Recipe, parallel: Parallel | None = None) -> TrainingSetup:
    """Build a supervised run. `data.targets` names the column with the target of each act of the scenario.

    Rewards are for measuring, by the suite `rewards`; under another suite they have no part in it.
    """
    tracks = build_sft_tracks(recipe)
    policy = _load(recipe, parallel)
    for name in ("source_dropout", "joint_dropout"):
        if getattr(recipe.sft, name) and "denoising" not in policy.kinds:
            raise ConfigError(
                f"sft.{name}={getattr(recipe.sft, name)} drops source images from denoising, which "
                "this policy does not do.",
                fix="remove it: for image tokens prompt_dropout drops everything.",
            )
    kinds = {kind for kind in trained_act_kinds(tracks, policy) if kind_config(recipe.algorithm, kind).weight > 0}
    if tracks[0].rejected:
        optimizer = _build_pair_optimizer(recipe, policy, kinds, parallel)
    else:
        optimizer = PolicyOptimizer(policy, recipe.optimizer, recipe.run.steps, kinds, parallel)
    return TrainingSetup(recipe, policy, tuple(_bound(tracks, policy, optimizer.parallel)), optimizer)


def _build_pair_optimizer(
    recipe: Recipe, policy: TrainablePolicy, kinds: Collection[str], parallel: Parallel | None
) -> PolicyOptimizer:
    """The optimizer of preferences that a dataset gives."""
    for kind in kinds:
        if not resolve_loss(recipe.algorithm, kind).trains_on_pairs:
            raise ConfigError(
                f"data.rejected gives pairs of acts, but the loss of {kind} acts does not train on pairs.",
                fix="set algorithm.loss to dpo, or remove data.rejected.",
            )
    return build_optimizer(recipe, policy, kinds, parallel)


def build_sft_tracks(recipe: Recipe) -> list[Track]:
    """The tracks of supervised training: scenarios, and data with targets, opened and checked, without weights.

    Raises ConfigError where they do not fit each other.
    """
    tracks = []
    for number, (name, config) in enumerate(recipe.resolved_tracks().items()):
        key = f"tracks.{name}." if name else ""
        with_rewards = needs_rewards(recipe)
        if with_rewards:
            _require_rewards(name, config, "add rewards to evaluate with, or set eval.suite to none.")
        scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
        targets = config.data.targets
        for act in scenario.acts:
            if act not in targets:
                raise ConfigError(
                    f"{key}data.targets names no column for the act {act!r} of scenario {scenario.name!r}.",
                    fix=f"set {key}data.targets.{act}=COLUMN.",
                )
        rejected = config.data.rejected
        for act in rejected.keys() - scenario.acts:
            raise ConfigError(
                f"{key}data.rejected names the act {act!r}; the acts of scenario {scenario.name!r} are: "
                f"{', '.join(scenario.acts)}.",
                fix="name acts of the scenario.",
            )
        given = [*targets.items(), *rejected.items()]
        images = [column for act, column in given if act in scenario.acts_making("image")]
        needed = (*scenario.columns, *targets.values(), *rejected.values())
        rows = open_rows(config.data, needed, seed=recipe.run.seed, image_columns=images)
        rewards = resolve_all(config.rewards, scenario.acts, rows.columns) if with_rewards else []
        warn_unused_images(rows, {*targets.values(), *rejected.values(), *_read_by_name(scenario, rewards)})
        cursor = ResumableSampler(rows, recipe.run.seed)
        tracks.append(Track(number, name, scenario, rewards, cursor, config.prompts_per_step, targets, rejected))
    if len({bool(track.rejected) for track in tracks}) > 1:
        raise ConfigError("Some tracks have data.rejected and some have not.", fix="give it for all of them, or none.")
    _check_eval_rows(recipe, tracks)
    return tracks


def needs_rewards(recipe: Recipe) -> bool:
    """Whether the recipe's suite evaluates with its rewards."""
    suite = resolve_suite(recipe)
    return suite is not None and suite.needs_rewards


def trained_act_kinds(tracks: Sequence[Track], policy: TrainablePolicy) -> set[str]:
    """The kinds of the acts that the tracks may train, as the policy performs them."""
    scenarios = [track.scenario for track in tracks]
    kinds: set[str | None] = {
        s.kind_of(name, policy.kinds) for s in scenarios for name in s.acts.keys() - s.untrained_acts
    }
    return {kind for kind in kinds if kind is not None}


def sampling_params(recipe: Recipe, step: int = 0) -> dict[str, Sampling]:
    """The recipe's sampling of each kind of act, at a step: a window of stochastic steps may move."""
    uniform = float(uniforms([(recipe.run.seed, step)], 1))
    return {kind: settings.at(step, uniform) for kind, settings in recipe.sampling.kinds().items()}


def _load(recipe: Recipe, parallel: Parallel | None) -> TrainablePolicy:
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.run.seed)  # new adapters begin at random
    suite, policy = resolve_suite(recipe), (parallel or Parallel()).load_policy(recipe.policy)
    if suite is not None:
        suite.check(policy)
    if parallel is not None:
        parallel.prepare(policy)
    return policy
