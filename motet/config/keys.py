"""Walks the schema: which keys there are, what each expects, and what a misspelt one was meant to be."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from motet.config.choice import Choice
from motet.config.sampling import SamplingConfig
from motet.config.schema import Recipe
from motet.config.section import PartialRecipe
from motet.core.printable import printable

KeyPath = Sequence[str | int]
"""The steps to a value, e.g. ("rewards", 0, "weight")."""

ALIASES_OF_OTHER_FRAMEWORKS = {  # what other frameworks call it
    "batch_size": "run.prompts_per_step",
    "cfg_scale": "sampling.image.guidance_scale",
    "cfg_weight": "sampling.image.guidance_scale",
    "clip_range": "algorithm.loss.epsilon",
    "dataset": "data.source",
    "entropy_coef": "algorithm.loss.entropy_bonus",
    "group_size": "algorithm.num_generations",
    "kl_coef": "algorithm.beta",
    "loss_type": "algorithm.loss",
    "lr": "optimizer.learning_rate",
    "max_completion_length": "sampling.text.max_tokens",
    "max_new_tokens": "sampling.text.max_tokens",
    "max_steps": "run.steps",
    "model": "policy.path",
    "model_name_or_path": "policy.path",
    "reward_weights": "rewards.N.weight",
    "save_steps": "run.save_every",
}
_NAMES = {"tracks": "TRACK", "per_kind": "KIND", "stages": "STAGE", "strategies": "STRATEGY"}
"""What stands for a name below a mapping of sections."""
_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_SIGNS = {Gt: ("gt", ">"), Ge: ("ge", ">="), Lt: ("lt", "<"), Le: ("le", "<=")}


def dotted(path: KeyPath) -> str:
    """`rewards.0.weight` for ("rewards", 0, "weight")."""
    return ".".join(str(part) for part in path)


def as_section(annotation: Any) -> type[BaseModel] | None:
    """The section class that an annotation names, `X | None` included; None for anything else, choices too."""
    annotation = unwrap_annotation(annotation)[0]
    section = isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, Choice)
    return cast("type[BaseModel]", annotation) if section else None


def is_choice(annotation: Any) -> bool:
    """Whether an annotation is that of a named choice, `Choice | None` included."""
    annotation = unwrap_annotation(annotation)[0]
    return isinstance(annotation, type) and issubclass(annotation, Choice)


def unwrap_annotation(annotation: Any) -> tuple[Any, Sequence[Any], bool]:
    """The type without `| None` and `Annotated`, its constraints, whether null is legal."""
    metadata: list[Any] = []
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        annotation, optional = next(a for a in get_args(annotation) if a is not types.NoneType), True
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    return annotation, metadata, optional


def annotation_at(path: KeyPath, model: type[BaseModel] = Recipe) -> tuple[Any, Sequence[Any], FieldInfo | None]:
    """The type at a path below a section, its constraints, and its field when a section's field lies there."""
    annotation: Any = model
    metadata: Sequence[Any] = ()
    field: FieldInfo | None = None
    for part in path:
        section = Choice if is_choice(annotation) else as_section(annotation)
        if section is not None:
            field = section.model_fields.get(str(part))
            plugins = section.plugin_sections() if issubclass(section, SamplingConfig) and field is None else {}
            if field is None and issubclass(section, PartialRecipe):
                field = Recipe.model_fields.get(str(part))
            if field is None and part not in plugins:
                return Any, (), None
            annotation, metadata = (plugins[str(part)], ()) if field is None else (field.annotation, field.metadata)
        else:
            inner = unwrap_annotation(annotation)[0]
            arguments = get_args(inner) or (Any,)
            annotation = arguments[-1] if get_origin(inner) is dict else arguments[0]
            metadata, field = (), None
    return annotation, metadata, field


def is_list(path: KeyPath, model: type[BaseModel] = Recipe) -> bool:
    """Whether a list lies at a path."""
    return get_origin(unwrap_annotation(annotation_at(path, model)[0])[0]) is tuple


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a key expects, in words: `a number > 0 and < 1, or null`."""
    annotation, inner, optional = unwrap_annotation(annotation)
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    section = as_section(annotation)
    if section is not None and issubclass(section, PartialRecipe):
        words = "keys of a recipe"
    elif section is not None:
        words = f"a section with keys among {', '.join(section.model_fields)}"
    elif is_choice(annotation):
        words = "a name, or {name: NAME, OPTION: VALUE}"
    elif origin is Literal:
        words = "one of " + ", ".join(str(choice) for choice in arguments)
    elif origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        words = f"a list of {count}entries, each {describe(arguments[0])}"
    elif origin is dict:
        words = "a mapping" if arguments[1] is Any else f"a mapping to {describe(arguments[1])}"
    else:
        words = _WORDS.get(annotation, "a value")
    limits = [(_SIGNS[type(mark)], mark) for mark in (*metadata, *inner) if type(mark) in _SIGNS]
    bounds = " and ".join(f"{sign} {_number(getattr(mark, name))}" for (name, sign), mark in limits)
    return f"{words} {bounds}".strip() + (", or null" if optional else "")


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def walk(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a section with its field; `N` is a list index, `KIND` a kind of act, `TRACK` a name."""
    for name, field in model.model_fields.items():
        annotation = unwrap_annotation(field.annotation)[0]
        origin, arguments = get_origin(annotation), get_args(annotation)
        inside = as_section(annotation)
        key = f"{prefix}{name}"
        if inside is None and origin in (tuple, dict):
            place = ".N" if origin is tuple else f".{_NAMES.get(name, 'NAME')}"
            inside = as_section(arguments[0] if origin is tuple else arguments[1])
            key += place if inside is not None else ""
        if inside is None:
            yield key, field
        else:
            yield from walk(inside, f"{key}.")


def distinct_keys() -> list[str]:
    """The keys of a recipe, each section that appears several times (such as `data` of a track) counted once."""
    keys: dict[tuple[type[BaseModel], str], str] = {}
    for key, _ in walk():
        *sections, name = key.split(".")
        section = as_section(annotation_at(sections)[0]) if sections else Recipe
        owners = [cls for cls in (section or Recipe).__mro__ if name in vars(cls).get("__annotations__", {})]
        keys.setdefault((owners[-1], name), key)
    return list(keys.values())


def suggestions(path: KeyPath, model: type[BaseModel] = Recipe) -> list[str]:
    """Keys that an unknown one may have been meant to be: those of its section first, then the same name elsewhere."""
    *parent, wrong = [str(part) for part in path]
    section = as_section(annotation_at(path[:-1], model)[0])
    close = get_close_matches(wrong, section.model_fields, n=1) if section is not None else []
    keys = [key for key, _ in walk(model)]
    elsewhere = [key for key in keys if key.rsplit(".", 1)[-1] == wrong]
    found = [dotted([*parent, name]) for name in close] + elsewhere[:2]
    if model is Recipe and wrong in ALIASES_OF_OTHER_FRAMEWORKS:
        found.append(ALIASES_OF_OTHER_FRAMEWORKS[wrong])
    if not found:
        leaves = {key.rsplit(".", 1)[-1]: key for key in keys}
        found = [leaves[leaf] for leaf in get_close_matches(wrong, leaves, n=1, cutoff=0.75)]
    return found


def explain(model: type[BaseModel] = Recipe, options: Iterable[tuple[str, str, FieldInfo]] = ()) -> str:
    """All keys of a recipe (or of one section) with type, default and documentation: `motet config --keys`.

    `options` are those of named choices, `(key, name, field)`: they follow the key of their choice.
    """
    known = list(options)
    lines: list[str] = []
    for key, field in walk(model):
        lines += _explained(key, field, "")
        for option, name, inner in known:
            if option.rpartition(".")[0] == key:
                lines += _explained(option, inner, f"{name}: ")
    return "\n".join(lines)


def _explained(key: str, field: FieldInfo, name: str) -> list[str]:
    default = "required" if field.is_required() else f"default {show(field.get_default(call_default_factory=True))}"
    expected = describe(field.annotation, field.metadata)
    return [f"{key}  ({name}{expected}; {default})", f"    {field.description or ''}"]


def show(value: Any) -> str:
    """A value as a recipe would write it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Choice):
        return show(value.model_dump()) if value.options else value.name
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        text = printable("{" + ", ".join(f"{key}: {show(item)}" for key, item in items) + "}", lines=False)
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in cast("Sequence[Any]", value)) + "]"
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
