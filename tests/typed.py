"""Types of the package's functions checked at every call, shapes included, at the price that each signature asks for.

The wrapper that jaxtyping's import hook puts around every function opens a scope for the names of dimensions and has
each parameter checked twice. Only a function with arrays in its signature needs the scope, and one check of beartype
covers parameters and result: a tiny training run takes 30 % less time.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import update_wrapper
from types import FunctionType
from typing import Any, get_args, get_type_hints

import jaxtyping

with_dimensions = jaxtyping.jaxtyped


def install(package: str) -> None:
    """Check the types of the functions and dataclasses in all modules of a package that are imported from now on."""
    jaxtyping.jaxtyped = typed  # what the hook puts before every function and class
    jaxtyping.install_import_hook(package, "beartype.beartype")


def typed(*, typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The decorator of a function or a class, called as `jaxtyping.jaxtyped` is."""

    def decorate(target: Any) -> Any:
        if inspect.isclass(target):
            if is_dataclass(target) and "__init__" in vars(target) and not hasattr(target.__init__, "__wrapped__"):
                target.__init__ = decorate(target.__init__)
            return target
        written = target.__annotations__
        hints = target.__annotations__ = types_of(target)
        checked = outside_of_the_package(typechecker(target))
        checked.__annotations__ = target.__annotations__ = written
        return with_dimensions(checked, typechecker=None) if has_array(list(hints.values())) else checked

    return decorate


def outside_of_the_package(check: Any) -> Any:
    """A check whose frame is not one of the package: `stacklevel=2` of a warning must not lead into the package."""
    if not hasattr(check, "__wrapped__"):
        return check  # a function without types is as it was
    outside = FunctionType(check.__code__, {"__name__": __name__}, check.__name__, check.__defaults__)
    outside.__kwdefaults__ = check.__kwdefaults__
    return update_wrapper(outside, check.__wrapped__)


def types_of(function: Any) -> dict[str, Any]:
    """A function's annotations as types; Any for one that names what does not exist yet."""
    try:
        types = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        types = {name: _type_of(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    if types.get("return") is Any and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        del types["return"]  # early versions of beartype want the type of an iterator
    return types


def _type_of(hint: Any, names: dict[str, Any]) -> Any:
    def holder(): ...

    holder.__annotations__ = {"hint": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["hint"]
    except (NameError, TypeError):
        return Any


def has_array(hint: Any) -> bool:
    """Whether a type is that of an array, or has one inside."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(has_array, hint if isinstance(hint, list) else get_args(hint)))
