"""The suite `image_statistics`: how much the images of fixed prompts differ; for the monitor `image_diversity`."""

from __future__ import annotations

from typing import Any

from motet.core.act_kinds import kinds_making
from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request
from motet.core.registry import registry
from motet.core.trajectory import ImageAct
from motet.report.monitors.image_diversity import PROBE_SUITE, mean_statistics
from motet.training.setup import sampling_params
from motet.training.suites import SuiteSettings


def image_statistics(policy: Policy, settings: SuiteSettings, prompts: Any = None, n: Any = 8) -> dict[str, float]:
    """Generate `n` images of each prompt as the recipe samples them, and measure them prompt by prompt.

    The noise is keyed by `eval.seed`, so that it is the same in every evaluation.
    """
    if not isinstance(prompts, list | tuple) or not prompts or not isinstance(n, int) or n < 2:
        raise ConfigError(
            f"eval.suite={PROBE_SUITE} needs prompts and n >= 2, got prompts={prompts!r:.80}, n={n!r}.",
            fix="give its option prompts a list of prompts.",
        )
    kinds = kinds_making("image", policy.kinds)
    if not kinds:
        raise ConfigError(
            f"eval.suite={PROBE_SUITE} needs images, but the policy generates only: {', '.join(sorted(policy.kinds))}.",
            fix="choose a policy that generates images.",
        )
    sampling, seed = sampling_params(settings.recipe)[kinds[0]], settings.recipe.eval.seed
    contexts = [user(str(prompt)) for prompt in prompts]
    requests = [Request(kinds[0], "image", context, (seed, 0, k, g)) for k, context in enumerate(contexts)
                for g in range(n)]  # fmt: skip
    images = [act.image for act in policy.act(requests, sampling) if isinstance(act, ImageAct)]
    return mean_statistics([images[k : k + n] for k in range(0, len(images), n)])


registry("suite").add(PROBE_SUITE, image_statistics)
