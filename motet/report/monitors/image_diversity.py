"""A monitor of what the images of single prompts lose: colours and differences, each prompt against its own start."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from motet.config.choice import Choice
from motet.core.printable import printable
from motet.report.callbacks import Metrics, Probe
from motet.report.monitors.base import Bound, Monitor, check_count, option_error
from motet.report.monitors.image_groups import parse_bounds

DEFAULT_BOUNDS = {"colour_modes": {"min_ratio": 0.5}, "pixel_distance": {"min_ratio": 0.25}}
OPEN = 2.0
"""Effective number of colours from which a prompt has some to lose."""
PROBE_SUITE = "image_statistics"
"""The suite that generates the images."""
_SHOWN, _LONGEST = 3, 60
"""How many prompts a message names, and their longest text."""


class ImageDiversity(Monitor):
    """Generates `n` images of some prompts every `every` steps and compares each prompt with its own start.

    `prompts` are texts; without them the first `num_prompts` rows of the data's `split` are rolled out by the recipe's
    scenarios. The noise is the same every time; denoising follows the ODE, without noise in its steps, as users sample
    it, and tokens are sampled as the recipe says.

    `bounds`: {STATISTIC: {min, max, min_ratio, max_ratio}} of the images of one prompt; see
    `motet.numerics.image_statistics`. The monitor acts when a share of the prompts of at least `share` is beyond a
    limit. `colour_modes`, the effective number of colours of what the images show, is only asked of prompts with at
    least two at the start: a prompt that names its colours has none to lose.
    """

    name: ClassVar[str] = "image_diversity"

    def __init__(
        self,
        prompts: Any = None,
        *,
        num_prompts: Any = 8,
        split: Any = "test",
        n: Any = 16,
        every: Any = 20,
        bounds: Any = None,
        share: Any = 0.25,
        action: Any = "warn",
        patience: Any = 1,
    ) -> None:
        super().__init__(action, patience, 1)
        self.bounds = parse_bounds(self.name, DEFAULT_BOUNDS if bounds is None else bounds)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise option_error(self.name, "share", share, "a number above 0 and at most 1")
        if isinstance(n, bool) or not isinstance(n, int) or n < 2:
            raise option_error(self.name, "n", n, "an integer of at least 2")
        check_count(self.name, "every", every)
        self.share = float(share)
        if prompts is None:
            check_count(self.name, "num_prompts", num_prompts)
            if not isinstance(split, str) or not split:
                raise option_error(self.name, "split", split, "the name of a split of the data")
            options = {"num_prompts": num_prompts, "split": split}
        elif not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
            raise option_error(self.name, "prompts", prompts, "a list of prompts")
        else:
            options = {"prompts": list(prompts)}
        self.probe = Probe(Choice.of(PROBE_SUITE, n=n, **options), every)
        self._warned = False

    def on_probe(self, step: int, metrics: Metrics) -> Metrics:
        """`metrics` are those of the suite: means as STATISTIC, and of each prompt as STATISTIC/PROMPT."""
        shown = {f"monitor/prompts/{name}": value for name, value in metrics.items() if "/" not in name}
        for statistic, bound in self.bounds.items():
            values = {
                name.partition("/")[2]: value for name, value in metrics.items() if name.startswith(f"{statistic}/")
            }
            starts = {prompt: self.start(step, f"{statistic}/{prompt}", value) for prompt, value in values.items()}
            counted = [prompt for prompt in values if statistic != "colour_modes" or starts[prompt] >= OPEN]
            if not counted:
                self._warn_closed(starts)
                continue
            beyond = _beyond(bound, {prompt: (values[prompt], starts[prompt]) for prompt in counted})
            shown[f"monitor/prompts/{statistic}_beyond"] = len(beyond) / len(counted)
            problem = None
            if beyond and len(beyond) >= self.share * len(counted):
                more = f"; and {len(beyond) - _SHOWN} more" if len(beyond) > _SHOWN else ""
                problem = (
                    f"after step {step} {len(beyond)} of {len(counted)} prompts are beyond the limit of {statistic}: "
                    f"{'; '.join(beyond[:_SHOWN])}{more}"
                )
            fix = (
                "look at the images of these prompts; start again from an earlier checkpoint with a larger "
                "algorithm.beta, a smaller learning rate, or a reward that does not prefer such images."
            )
            self.act(step, statistic, problem, fix)
        return shown

    def _warn_closed(self, starts: Mapping[str, float]) -> None:
        if self._warned or not starts:
            return
        self._warned = True
        warnings.warn(
            f"Monitor {self.name!r}: no prompt had images of {OPEN:g} colours or more at the start (colour_modes is at "
            f"most {max(starts.values()):.3g}), so lost colours are not seen. Name prompts that leave colours open as "
            "its option prompts.",
            stacklevel=2,
        )


def _beyond(bound: Bound, prompts: Mapping[str, tuple[float, float]]) -> list[str]:
    """What prompts, each with its value and that of its start, are beyond the limit, those that lost most first."""
    found: list[tuple[float, str]] = []
    for prompt, (value, start) in prompts.items():
        violation = bound.violation(value, start)
        if violation is not None:
            shown = printable(prompt, lines=False)
            shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
            found.append((value / start if start else value, f"{shown!r}: {value:.3g}, {violation}"))
    return [text for _, text in sorted(found)]
