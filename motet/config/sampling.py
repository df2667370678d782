"""The keys of `sampling`: how the acts of each kind are sampled. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, cast

from pydantic import AfterValidator, ConfigDict, Field, PositiveFloat, PositiveInt, create_model, model_validator

from motet.config.choice import Choice
from motet.config.problem import Problem
from motet.config.section import Section
from motet.core.act_kinds import ACT_KINDS
from motet.core.sampling import Guidance, Sampling, SdeType


def _known_kind(name: str) -> str:
    if ACT_KINDS.get(name) is None:
        raise ValueError(f"{name!r} is not a kind of act")
    return name


KindName = Annotated[str, AfterValidator(_known_kind)]
"""The name of a kind of act."""


class KindSamplingConfig(Section):
    """The settings of one kind of act, `sampling.KIND`: the base of every kind's own class."""

    @property
    def max_actions(self) -> int:
        """The most actions of an act, where acts differ in length (the constant of Dr. GRPO); 1: all have as many."""
        return 1

    def at(self, step: int = 0, uniform: float = 0.0) -> Sampling:
        """The sampling of a training step; `uniform` in [0, 1) is random, the same whenever the step is repeated."""
        raise NotImplementedError

    def unused(self, section: str) -> Iterator[Problem]:
        """Keys without a meaning under the other settings; `section` is the dotted key of these settings."""
        yield from ()

    def problems(self, section: str) -> Iterator[Problem]:
        """Settings that each are valid and together are not."""
        yield from ()


class TokenSamplingConfig(KindSamplingConfig):
    """How acts of tokens are sampled, and so scored: replay uses the same temperature, top-k, top-p and min-p."""

    temperature: PositiveFloat = 1.0
    """Softmax temperature of sampling, of the log-probs and of their replay."""
    top_k: PositiveInt | None = None
    """Keep the k likeliest tokens; None: off."""
    top_p: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep the smallest set of tokens with this mass; None: off."""
    min_p: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Keep the tokens at least this many times as likely as the likeliest; None: off."""


class TextSamplingConfig(TokenSamplingConfig):
    """How text acts are sampled, and so scored."""

    max_tokens: PositiveInt = 512
    """Longest completion, the end-of-sequence token included."""

    @property
    def max_actions(self) -> int:
        return self.max_tokens

    def at(self, step: int = 0, uniform: float = 0.0) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, max_tokens=self.max_tokens, min_p=self.min_p)


class ImageSamplingConfig(TokenSamplingConfig):
    """How acts of image tokens are sampled, and so scored."""

    guidance: Guidance = "none"
    """`guided`: sample and score the mixture; `conditional`: sample it, score the conditional branch (biased)."""
    guidance_scale: PositiveFloat = 5.0
    """Weight s of u + s (c - u), conditional and unconditional logits; used when guidance is not `none`."""

    def at(self, step: int = 0, uniform: float = 0.0) -> Sampling:
        scale = self.guidance_scale if self.guidance != "none" else 1.0
        return Sampling(self.temperature, self.top_k, self.top_p, self.guidance, scale, min_p=self.min_p)

    def unused(self, section: str) -> Iterator[Problem]:
        yield from _unused_scales(section, self.guidance, ("guidance_scale",))

    def problems(self, section: str) -> Iterator[Problem]:
        if self.guidance != "none" and self.guidance_scale == 1:
            text = "1 is the conditional distribution itself, sampled at twice the price."
            fix = f"set {section}.guidance to none and remove the scale, or raise it."
            yield Problem(f"{section}.guidance_scale", text, fix)


class FixedWindowOptions(Section):
    """A window that stays at the first steps."""


class ProgressiveWindowOptions(Section):
    """A window that slides towards the image as training goes on."""

    steps_per_position: PositiveInt = 25
    """Rollouts at each position of the window; after the last position comes the first."""


class RandomWindowOptions(Section):
    """A window that is anywhere, at random."""


WINDOW_SCHEDULES: dict[str, type[Section]] = {
    "fixed": FixedWindowOptions,
    "progressive": ProgressiveWindowOptions,
    "random": RandomWindowOptions,
}
"""Values of `sampling.denoising.sde_window.schedule` and their options."""


class SdeWindowConfig(Section):
    """A window of stochastic steps, outside which the ODE is followed without noise (MixGRPO, arXiv 2507.21802)."""

    size: PositiveInt
    """Steps that are stochastic, and so trained."""
    schedule: Choice = Choice.of("progressive")
    """`fixed`: stay at the first steps; `progressive`: slide towards the image; `random`: be anywhere."""
    stride: PositiveInt = 1
    """Steps between two positions of the window."""

    def starts(self, num_steps: int) -> tuple[int, ...]:
        """Where the window begins as it slides over `num_steps` steps, of which the last is never stochastic.

        0, stride, 2 stride, ...; the last window ends with the last stochastic step, whatever the stride.
        """
        last = num_steps - 1 - self.size
        return tuple(sorted({*range(0, last, self.stride), last}))

    def at(self, num_steps: int, step: int, uniform: float) -> tuple[int, int]:
        """First step and size of the window at a training step; `uniform` in [0, 1) chooses among random positions."""
        starts, options = self.starts(num_steps), WINDOW_SCHEDULES[self.schedule.name](**self.schedule.options)
        place = 0
        if isinstance(options, ProgressiveWindowOptions):
            place = step // options.steps_per_position % len(starts)
        elif isinstance(options, RandomWindowOptions):
            place = min(int(uniform * len(starts)), len(starts) - 1)
        return starts[place], self.size


class DenoisingSamplingConfig(KindSamplingConfig):
    """How denoising acts are sampled, and so scored."""

    num_steps: PositiveInt = 10
    """Steps from noise to image."""
    noise_level: PositiveFloat = 0.7
    """Noise of the stochastic steps: Flow-GRPO's a, DanceGRPO's eta, or the share of new noise of cps (at most 1)."""
    sde_type: SdeType = "flow_sde"
    """Which stochastic step; see docs/algorithms.md."""
    sde_window: SdeWindowConfig | None = None
    """Make a window of steps stochastic; None: all but the last."""
    shift: PositiveFloat | None = None
    """Shift of the schedule towards noise; None: what the checkpoint's scheduler says."""
    guidance: Guidance = "none"
    """As for image tokens: of velocities instead of logits."""
    guidance_scale: PositiveFloat = 3.5
    """Weight of the prompt in the mixture; used when guidance is not `none`."""
    image_guidance_scale: PositiveFloat = 1.0
    """Weight of an edit's source image in the mixture; used when guidance is not `none`."""

    def at(self, step: int = 0, uniform: float = 0.0) -> Sampling:
        window = self.sde_window
        return Sampling(
            guidance=self.guidance,
            guidance_scale=self.guidance_scale if self.guidance != "none" else 1.0,
            image_guidance_scale=self.image_guidance_scale,
            num_steps=self.num_steps,
            noise_level=self.noise_level,
            sde_type=self.sde_type,
            sde_window=None if window is None else window.at(self.num_steps, step, uniform),
            shift=self.shift,
        )

    def unused(self, section: str) -> Iterator[Problem]:
        yield from _unused_scales(section, self.guidance, ("guidance_scale", "image_guidance_scale"))

    def problems(self, section: str) -> Iterator[Problem]:
        if self.guidance != "none" and self.guidance_scale == 1 and self.image_guidance_scale == 1:
            text = "1 is the conditional velocity itself, computed at twice the price."
            yield Problem(f"{section}.guidance_scale", text, f"set {section}.guidance to none, or raise the scale.")
        if self.sde_type == "cps" and self.noise_level > 1:
            text = f"is {self.noise_level:g}, but cps takes the share of new noise, 0 to 1."
            yield Problem(f"{section}.noise_level", text, "0.7 is usual, or choose flow_sde.")
        window, stochastic = self.sde_window, self.num_steps - 1
        if window is not None and window.size > stochastic:
            text = f"is {window.size}, but of {self.num_steps} steps only {stochastic} can be stochastic."
            yield Problem(
                f"{section}.sde_window.size", text, f"lower it to {stochastic}, or raise {section}.num_steps."
            )
        elif stochastic < 1:
            yield Problem(
                f"{section}.num_steps", "is 1, and the last step is never stochastic.", "set it to 2 or more."
            )


class SamplingConfig(Section):
    """The settings of each kind of act; those of a plug-in's kind are read by the class that its record names."""

    model_config = ConfigDict(extra="allow")

    text: TextSamplingConfig = TextSamplingConfig()
    image: ImageSamplingConfig = ImageSamplingConfig()
    denoising: DenoisingSamplingConfig = DenoisingSamplingConfig()

    @model_validator(mode="before")
    @classmethod
    def _read_plugin_kinds(cls, value: Any) -> Any:
        given = cast("dict[str, Any]", value) if isinstance(value, dict) else dict[str, Any]()
        plugins = {name: settings for name, settings in given.items() if name not in cls.model_fields}
        if not plugins:
            return cast("Any", value)
        fields: dict[str, Any] = {name: (section, section()) for name, section in cls.plugin_sections().items()}
        sections = create_model("PluginKinds", __base__=Section, **fields)
        text = json.dumps(plugins, default=lambda section: section.model_dump())
        read = sections.model_validate_json(text, strict=True)
        return {**given, **{name: getattr(read, name) for name in plugins}}

    @classmethod
    def plugin_sections(cls) -> dict[str, type[KindSamplingConfig]]:
        """The settings classes of the kinds that plug-ins registered, by name."""
        return {name: kind.settings_class for name, kind in ACT_KINDS.entries.items() if name not in cls.model_fields}

    def kinds(self) -> dict[str, KindSamplingConfig]:
        """The settings of every kind of act, by name."""
        return {name: getattr(self, name, None) or kind.settings_class() for name, kind in ACT_KINDS.entries.items()}


def _unused_scales(section: str, guidance: Guidance, scales: tuple[str, ...]) -> Iterator[Problem]:
    if guidance == "none":
        fix = f"remove it, or set {section}.guidance to guided."
        for name in scales:
            yield Problem(f"{section}.{name}", f"has no effect while {section}.guidance is none.", fix)
