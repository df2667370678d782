"""The kinds of act: what motet has to know of each, in one record. Imports no torch.

A new kind is a record and the classes that it names; a policy that performs it completes it:

    motet.register("act_kind", "masked_image", ActKind(makes="image", act=MaskedImage, settings=MaskedSamplingConfig))

A kind outside motet lives in its own package, which registers it when it is imported or by an entry point of the group
`motet.plugins`; recipes set its sampling below `sampling.masked_image`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from motet.core.errors import ConfigError
from motet.core.registry import Registry, did_you_mean, load_attribute, registry
from motet.core.sampling import Sampling

Makes = Literal["text", "image"]
"""What the acts of a kind come to. A scenario asks for one of these; any kind that makes it can perform the request."""


@dataclass(frozen=True)
class ActKind:
    """What motet knows of a kind of act. Classes may be given as `package.module:Class`, imported when needed.

    `makes` says how acts of the kind are shown, scored and compared with data: as `act.text` or as `act.image`.
    `act` is the class of its acts, a subclass of `TextAct` or `ImageAct` (`motet.core.trajectory`); `settings` the
    class of its section `sampling.KIND`, a subclass of `motet.config.sampling.KindSamplingConfig`. `loss` are the
    settings of `algorithm.per_kind.KIND` that a recipe may override. `interactive` is what `generate_text` and
    `generate_images` set of its sampling unless their caller does.
    """

    makes: Makes
    act: str | type
    settings: str | type
    loss: Mapping[str, Any] = field(default_factory=dict[str, Any])
    interactive: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def act_class(self) -> Any:
        """The class of its acts."""
        return _imported(self.act)

    @property
    def settings_class(self) -> Any:
        """The class of its section of a recipe."""
        return _imported(self.settings)

    def sampling(self, **changes: Any) -> Sampling:
        """The sampling of its default settings, with fields of `Sampling` changed."""
        return replace(self.settings_class().at(), **changes)


def _imported(reference: str | type) -> Any:
    return load_attribute(reference, key="act_kind") if isinstance(reference, str) else reference


ACT_KINDS: Registry[ActKind] = registry("act_kind")
ACT_KINDS.add(
    "text",
    ActKind(
        makes="text",
        act="motet.core.trajectory:TextTokens",
        settings="motet.config.sampling:TextSamplingConfig",
        interactive={"max_tokens": 128},
    ),
)
ACT_KINDS.add(
    "image",
    ActKind(
        makes="image",
        act="motet.core.trajectory:ImageTokens",
        settings="motet.config.sampling:ImageSamplingConfig",
    ),
)
ACT_KINDS.add(
    "denoising",
    ActKind(
        makes="image",
        act="motet.core.trajectory:DenoisingSteps",
        settings="motet.config.sampling:DenoisingSamplingConfig",
        interactive={"temperature": 0.0},
    ),
)


def act_kind(name: str) -> ActKind:
    """The kind of that name. Raises ConfigError where there is none."""
    found = ACT_KINDS.get(name)
    if found is None:
        names = list(ACT_KINDS.entries)
        raise ConfigError(
            f"{name!r} is not a kind of act; must be one of: {', '.join(names)}.{did_you_mean(name, names)}",
            fix="correct the name, or import the package that registers the kind.",
        )
    return found


def kinds_making(makes: Makes, among: Collection[str] | None = None) -> list[str]:
    """The names of the kinds that make texts, or images, in the order of the registry; of `among` if it is given."""
    kinds = ACT_KINDS.entries.items()
    return [name for name, kind in kinds if kind.makes == makes and (among is None or name in among)]
