"""Finding things by name: a built-in from a registry, a user's own from `package.module:name` or `file.py:name`.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from motet.core.errors import ConfigError, MotetError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with its leading space, or nothing when no known name is close."""
    known = list(known)
    folded = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """`ValueError: what it said first`: an exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Registry(Generic[T]):
    """Built-ins by name. `key` is the recipe's key that names one, for error messages."""

    def __init__(self, what: str, *, key: str) -> None:
        self.what, self.key = what, key
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Register an entry; ConfigError when the name is taken."""
        if name in self._entries or ":" in name:
            problem = "contains a colon, which paths do" if ":" in name else "exists already"
            raise ConfigError(f"A {self.what} called {name!r} {problem}.", fix=f"give the {self.what} another name.")
        self._entries[name] = entry

    @property
    def entries(self) -> Mapping[str, T]:
        """All built-ins, by name."""
        return dict(self._entries)

    def find(self, name: str) -> T | Any:
        """The built-in of that name, or the object that a path (anything with a colon) leads to. Raises ConfigError."""
        if name in self._entries:
            return self._entries[name]
        if ":" in name:
            return load_attribute(name, key=self.key)
        hint = did_you_mean(name, self._entries)
        if not hint and "." in name:  # the spelling of other frameworks
            hint = f" Did you mean {':'.join(name.rsplit('.', 1))!r}?"
        raise ConfigError(
            f"{self.key}={name!r} is no {self.what}; built in are: {', '.join(sorted(self._entries))}.{hint}",
            fix=f"use a built-in name, or a path to your own: package.module:my_{self.what} or file.py:my_{self.what}.",
        )


def load_attribute(path: str, *, key: str) -> Any:
    """The object at `package.module:attribute` or `folder/file.py:attribute` (relative to the current folder).

    A file is executed once, however many of its attributes are asked for. Raises ConfigError naming `key` when the
    module, the file or the attribute does not exist, or when the module fails to import.
    """
    place, _, attribute = path.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"{key}={path!r} is no path.", fix="write package.module:attribute or file.py:attribute.")
    module = _load_file(place, key) if place.endswith(".py") else _load_module(place, key)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{key}={path!r}: {place} has no {attribute!r}.{did_you_mean(attribute, public)}",
            fix=f"name something that {getattr(module, '__file__', None) or place} defines.",
        ) from None


def _load_module(name: str, key: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not have the current folder on its path
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except MotetError:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name == missing or name.startswith(missing + ".")):
            raise ConfigError(
                f"{key} names the module {name!r}, but there is no module {missing!r}.",
                fix=f"install it, run from the folder that holds it ({os.getcwd()} now), or give a file: file.py:name.",
            ) from None
        raise _broken(name, key, error) from error


def _load_file(place: str, key: str) -> ModuleType:
    file = Path(place).expanduser().resolve()
    if not file.is_file():
        near = [path.name for path in file.parent.glob("*.py")]
        raise ConfigError(
            f"{key} names the file {str(file)!r}, which does not exist.{did_you_mean(file.name, near)}",
            fix=f"give a path relative to the current folder, {os.getcwd()}.",
        )
    name = f"motet_user_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution, as dataclasses and pickle look modules up by name
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, MotetError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _broken(str(file), key, error) from error
    return module


def _broken(name: str, key: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"{key} names {name!r}, which fails to import: {first_line(error)}.", fix="mend the module; see the traceback."
    )
