"""The suite `image_statistics`: how much the images of single prompts differ; for the monitor `image_diversity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from motet.core.act_kinds import act_kind, kinds_making
from motet.core.conversation import user
from motet.core.errors import ConfigError, MotetError
from motet.core.protocols import Policy, Request
from motet.core.registry import registry
from motet.core.sampling import Sampling
from motet.core.trajectory import ImageAct
from motet.data.rows import open_rows
from motet.data.sources import has_splits
from motet.report.monitors.image_diversity import PROBE_SUITE
from motet.report.monitors.image_groups import group_statistics, last_images, mean_statistics
from motet.training.rollout import rollout
from motet.training.setup import sampling_params
from motet.training.suites import SuiteSettings

Images = Mapping[str, list[Image.Image]]
"""The images of each prompt."""


@dataclass(frozen=True)
class _Rows:
    """The first rows of a split."""

    count: int
    split: str


def image_statistics(
    policy: Policy, settings: SuiteSettings, prompts: Any = None, num_prompts: Any = 8, split: Any = "test", n: Any = 8
) -> dict[str, float]:
    """Generate `n` images of each prompt and measure them prompt by prompt: STATISTIC/PROMPT, and means as STATISTIC.

    Without `prompts`, the first `num_prompts` rows of the data's `split` are rolled out by each track whose scenario
    generates images (a single file has no splits). The noise is keyed by `eval.seed`, so that it is the same in every
    evaluation. Denoising adds no noise of its own (temperature 0), and tokens are sampled as the recipe says.
    """
    if not isinstance(n, int) or n < 2 or not (prompts is None or (isinstance(prompts, list | tuple) and prompts)):
        raise ConfigError(
            f"eval.suite={PROBE_SUITE} needs n >= 2 and prompts, got n={n!r}, prompts={prompts!r:.80}.",
            fix="correct them, or leave out prompts for those of the data.",
        )
    kinds = kinds_making("image", policy.kinds)
    if not kinds:
        raise ConfigError(
            f"eval.suite={PROBE_SUITE} needs images, but the policy generates only: {', '.join(sorted(policy.kinds))}.",
            fix="choose a policy that generates images.",
        )
    samplings = sampling_params(settings.recipe)
    samplings |= {kind: replace(samplings[kind], **act_kind(kind).interactive) for kind in kinds}
    if prompts is None:
        images = _of_data(policy, settings, samplings, _Rows(num_prompts, split), n)
    else:
        images = _of_prompts(policy, prompts, samplings[kinds[0]], kinds[0], n, seed=settings.recipe.eval.seed)
    measured = {prompt: group_statistics(group) for prompt, group in images.items() if len(group) > 1}
    single = {f"{name}/{prompt}": value for prompt, group in measured.items() for name, value in group.items()}
    return mean_statistics(list(measured.values())) | single


def _of_prompts(policy: Policy, prompts: Sequence[Any], sampling: Sampling, kind: str, n: int, *, seed: int) -> Images:
    """The images that the policy is asked for directly."""
    texts = list(dict.fromkeys(str(prompt) for prompt in prompts))
    contexts = [user(text) for text in texts]
    requests = [Request(kind, "image", context, (seed, 0, k, g)) for k, context in enumerate(contexts)
                for g in range(n)]  # fmt: skip
    images = [act.image for act in policy.act(requests, sampling) if isinstance(act, ImageAct)]
    return {text: images[k * n : (k + 1) * n] for k, text in enumerate(texts)}


def _of_data(
    policy: Policy, settings: SuiteSettings, samplings: Mapping[str, Sampling], wanted: _Rows, n: int
) -> Images:
    """The last image of each trajectory of the scenarios on the data's rows. Raises ConfigError or DataError."""
    recipe, found = settings.recipe, dict[str, list[Image.Image]]()
    for track in settings.setup.tracks:
        if not track.scenario.acts_making("image"):
            continue
        data = recipe.resolved_tracks()[track.name].data
        if has_splits(data.source):
            data = data.model_copy(update={"split": wanted.split, "size": None})
        try:
            rows = open_rows(data, track.scenario.columns, seed=recipe.eval.seed, check=False)
            tasks = [rows.task(i) for i in range(wanted.count if rows.size is None else min(wanted.count, rows.size))]
        except MotetError as error:
            raise type(error)(
                f"run.callbacks: image_diversity generates images of the data's split {data.split!r}: {error.problem}",
                fix="set its option split to one that the data has, or prompts to a list of texts.",
            ) from error
        groups = rollout(
            policy, track.scenario, tasks, n, samplings=samplings, seed=recipe.eval.seed, step=0, track=track.number
        )
        for row, group in enumerate(groups):
            acts = group.trajectories[0].acts
            text = acts[0].context.text.partition("\n")[0] if acts else ""
            found[" ".join(filter(None, (f"row {row}", track.name, text)))] = last_images(group)
    if not found:
        raise ConfigError(
            f"eval.suite={PROBE_SUITE} has no prompts: no track of the run generates images.",
            fix="set its option prompts to a list of texts.",
        )
    return found


registry("suite").add(PROBE_SUITE, image_statistics)
