"""Names in recipes: motet's own entries, those that users and installed packages register, and paths to objects.

    REWARDS: Registry[Reward] = registry("reward")   # one registry per group; modules of motet add their own entries
    REWARDS.add("psnr", psnr)
    REWARDS.find("psnr")                             # or "package.module:name", "file.py:name", or an object

Users register with `motet.register`. Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import operator
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, overload

from motet.core.errors import ConfigError, MotetError

T = TypeVar("T")
MOTET = "motet"
"""Owner of the built-in entries."""
PYTHON = "python:"
"""What the name of an object begins with that a Python program gave to `motet.train` (`bind_objects`)."""
PLUGINS = "motet.plugins"
"""The entry-point group of installed packages."""


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


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    owner: str
    """Who registered it: `motet`, an installed package, or a module."""

    def is_reload_of(self, other: _Entry[T]) -> bool:
        """Whether a module or a notebook cell that ran again has defined the same thing again."""
        same = getattr(self.value, "__qualname__", type(self.value)) == getattr(
            other.value, "__qualname__", type(other.value)
        )
        return same and self.owner == other.owner != MOTET


class Registry(Generic[T]):
    """The entries of one group, by name. `key` is the recipe's key that names one, for error messages.

    `built_in` is the module whose import registers motet's own entries; it is imported when a name is missing or names
    are listed. So are the plug-ins of installed packages (`load_plugins`).
    """

    def __init__(self, what: str, *, key: str, built_in: str | None = None) -> None:
        self.what, self.key, self.built_in = what, key, built_in
        self._entries: dict[str, _Entry[T]] = {}
        self._clashes: dict[str, ConfigError] = {}

    def add(self, name: str, entry: T, *, owner: str = MOTET) -> None:
        """Register an entry; ConfigError, naming both owners, when the name is taken."""
        if ":" in name:
            fix = f"give the {self.what} another name."
            raise ConfigError(f"A {self.what} called {name!r} contains a colon, which paths do.", fix=fix)
        if owner.partition(".")[0] == MOTET:
            owner = MOTET
        else:
            self._load_built_in()
            owner = _loading or owner
        new, old = _Entry(entry, owner), self._entries.get(name)
        if old is not None and not new.is_reload_of(old):
            error = ConfigError(
                f"A {self.what} called {name!r} exists already: {old.owner} registered it, and so does {new.owner}.",
                fix=f"give the {self.what} another name.",
            )
            if old.owner != MOTET:  # a built-in is what its name has always meant
                self._clashes[name] = error
            raise error
        self._entries[name] = new

    @property
    def entries(self) -> Mapping[str, T]:
        """All entries by name: motet's own and those of plug-ins. Warns of plug-ins that fail to load."""
        self._load_built_in()
        for problem in load_plugins().values():
            warnings.warn(problem, stacklevel=2)
        return {name: entry.value for name, entry in self._entries.items()}

    def get(self, name: str) -> T | None:
        """The entry registered under a name; None where there is none."""
        if name not in self._entries:
            self._load_built_in()
        if name not in self._entries:
            load_plugins()
        if name in self._clashes:
            raise self._clashes[name]
        return self._entries[name].value if name in self._entries else None

    def find(self, name: Any) -> T | Any:
        """The entry of that name, the object that a path (anything with a colon) leads to, or the object itself.

        Raises ConfigError for a name that nothing registers and a path that leads nowhere.
        """
        if not isinstance(name, str):
            return name
        if name.startswith(PYTHON):
            return self._python_object(name)
        if is_object_path(name):
            return load_attribute(name, key=self.key)
        found = self.get(name)
        if found is not None:
            return found
        raise self._unknown(name)

    def _python_object(self, name: str) -> Any:
        if name in _objects:
            return _objects[name]
        raise ConfigError(
            f"{self.key}={name!r} is an object of the Python program that started this run, not a name.",
            fix="run that program again (motet.train(..., resume=True) goes on with the run), or name the object by a "
            f"path: package.module:my_{self.what} or file.py:my_{self.what}.",
        )

    def _unknown(self, name: str) -> ConfigError:
        hint = did_you_mean(name, self._entries)
        if not hint and "." in name:  # the spelling of other frameworks
            hint = f" Did you mean {':'.join(name.rsplit('.', 1))!r}?"
        broken = "".join(f" {problem}" for problem in load_plugins().values())
        return ConfigError(
            f"{self.key}={name!r} is not a {self.what}; there are: {', '.join(sorted(self._entries))}.{hint}{broken}",
            fix=f"use one of them, or a path to your own: package.module:my_{self.what} or file.py:my_{self.what}.",
        )

    def _load_built_in(self) -> None:
        if self.built_in is not None:
            importlib.import_module(self.built_in)


_objects: dict[str, Any] = {}


@contextmanager
def bind_objects(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let recipes name Python objects, `python:NAME` as `find` takes it, while the context lasts."""
    before = dict(_objects)
    _objects.update(objects)
    try:
        yield
    finally:
        _objects.clear()
        _objects.update(before)


_GROUPS: dict[str, Registry[Any]] = {
    "policy": Registry("policy", key="policy.path", built_in="motet.policies.loading"),
    "scenario": Registry("scenario", key="scenario", built_in="motet.scenarios"),
    "reward": Registry("reward", key="rewards.name", built_in="motet.rewards"),
    "loss": Registry("loss", key="algorithm.loss", built_in="motet.training.losses"),
    "advantage": Registry("advantage", key="algorithm.advantage", built_in="motet.training.advantage_estimators"),
    "act_kind": Registry("kind of act", key="sampling", built_in="motet.core.act_kinds"),
    "data": Registry("data source", key="data.source", built_in="motet.data"),
    "suite": Registry("suite", key="eval.suite", built_in="motet.evaluation.suites"),
    "callback": Registry("callback", key="run.callbacks", built_in="motet.report.monitors"),
    "tracker": Registry("tracker", key="run.report_to", built_in="motet.report.trackers"),
}


def registry(group: str) -> Registry[Any]:
    """The registry of a group: a key of `_GROUPS`, such as policy, reward or callback."""
    if group not in _GROUPS:
        raise ConfigError(
            f"{group!r} is not a group of the registry; must be one of: {', '.join(_GROUPS)}."
            f"{did_you_mean(group, _GROUPS)}",
            fix="correct the name of the group.",
        )
    return _GROUPS[group]


@overload
def register(group: str, name: str) -> Callable[[T], T]: ...


@overload
def register(group: str, name: str, entry: T) -> T: ...


def register(group: str, name: str, entry: Any = None) -> Any:
    """Let recipes call something of your own by name, as a decorator or as a call; returns it unchanged.

        @motet.register("reward", "short")
        def short(prompts, completions, **columns):
            return [-float(len(text)) for text in completions]

        motet.register("data", "sums", [{"question": "1 + 1?", "answer": "2"}])

    What an entry of a group is: docs/how-to/plugins.md. An installed package has its registrations found by an entry
    point of the group `motet.plugins` that names the module which makes them:

        [project.entry-points."motet.plugins"]
        my_package = "my_package.motet_plugin"

    Raises ConfigError for an unknown group and for a name that is taken, naming who took it.
    """
    owner = str(sys._getframe(1).f_globals.get("__name__", "a script"))
    known = registry(group)

    def add(value: T) -> T:
        known.add(name, value, owner=owner)
        return value

    return add if entry is None else add(entry)


_loading: str | None = None
"""The installed package whose plug-in is being imported."""
_failed_plugins: dict[str, str] | None = None
"""By entry point: why its plug-in failed to load. None before any was loaded."""


def load_plugins() -> Mapping[str, str]:
    """Import the modules that installed packages name in the entry-point group `motet.plugins`, once per process.

    A module that fails to import is left out. Returns why, by entry point.
    """
    global _failed_plugins, _loading
    if _failed_plugins is not None:
        return _failed_plugins
    _failed_plugins = {}
    for point in entry_points(group=PLUGINS):
        package = point.dist.name if point.dist is not None else point.value
        _loading = f"the package {package!r}"
        try:
            point.load()
        except (Exception, SystemExit) as error:
            reason = error.problem if isinstance(error, MotetError) else first_line(error)
            _failed_plugins[point.name] = f"The motet plug-in {point.name!r} of {_loading} does not load: {reason}"
        finally:
            _loading = None
    return _failed_plugins


def is_object_path(name: str) -> bool:
    """Whether a name is the path of a Python object: `package.module:name`, `file.py:name` or `python:name`."""
    return ":" in name and "://" not in name


def load_attribute(path: str, *, key: str) -> Any:
    """The object at `package.module:attribute` or `folder/file.py:attribute` (relative to the current folder).

    A file is executed once, however many of its attributes are asked for. Raises ConfigError naming `key` when the
    module, the file or the attribute does not exist, or when the module fails to import.
    """
    place, _, attribute = path.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"{key}={path!r} is not a path.", fix="write package.module:attribute or file.py:attribute.")
    module = _load_file(place, key) if place.endswith(".py") else _load_module(place, key)
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{key}={path!r}: {place} has no {attribute!r}.{did_you_mean(attribute, public)}",
            fix=f"name something that {getattr(module, '__file__', None) or place} defines.",
        ) from None


_LOADING = threading.RLock()


def _load_module(name: str, key: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not have the current folder on its path
    if name not in sys.modules:
        with _LOADING:  # the finder of zip files fails if two threads clear its cache
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
    with _LOADING:  # a second thread must not see a module whose code is still running
        return sys.modules[name] if name in sys.modules else _execute(file, name, key)


def _execute(file: Path, name: str, key: str) -> ModuleType:
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
        f"{key} names {name!r}, which fails to import: {first_line(error)}.",
        fix="correct the module; see the traceback.",
    )
