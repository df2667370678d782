"""The registry: names, paths, objects, and the plug-ins of installed packages."""

import importlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from motet.core import registry as registries
from motet.core.errors import ConfigError
from motet.core.registry import Registry, bind_objects, did_you_mean, first_line, load_attribute, register, registry


@pytest.fixture
def rewards():
    return Registry("reward", key="rewards.name")


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install packages into a temporary folder: a function of name and source that makes each one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registries, "_failed_plugins", None)

    def install(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[motet.plugins]\n{name} = {name}\n")

    yield install
    for name in [name for name in sys.modules if name.startswith("outside_")]:
        del sys.modules[name]


def test_did_you_mean():
    assert did_you_mean("anser", ["answer", "image"]) == " Did you mean 'answer'?"
    assert did_you_mean("answer", ["ANSWER"]) == " Did you mean 'ANSWER'?"
    assert did_you_mean("zzz", ["answer"]) == did_you_mean("x", []) == ""


def test_first_line():
    assert first_line(ValueError("\n one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"


def test_names_are_taken_once(rewards):
    rewards.add("a", 1)
    with pytest.raises(ConfigError, match="'a' exists already: motet registered it, and so does my_module"):
        rewards.add("a", 2, owner="my_module")
    with pytest.raises(ConfigError, match="contains a colon"):
        rewards.add("a:b", 2)
    assert rewards.find("a") == 1 and rewards.entries == {"a": 1}


def test_a_cell_that_runs_again_replaces_what_it_defined(rewards):
    def define():
        def short():
            """A reward."""

        return short

    first, second = define(), define()
    rewards.add("short", first, owner="__main__")
    rewards.add("short", second, owner="__main__")
    assert rewards.find("short") is second
    with pytest.raises(ConfigError, match="exists already"):
        rewards.add("short", len, owner="__main__")


def test_attributes_of_attributes(rewards):
    assert rewards.find("os:path.join")("a", "b") == "a/b"


def test_objects_have_names_for_a_while(rewards):
    assert rewards.find(len) is len
    with bind_objects({"python:length": len}):
        assert rewards.find("python:length") is len
    with pytest.raises(
        ConfigError, match=r"rewards.name='python:length' is an object of the Python program.*resume=True"
    ):
        rewards.find("python:length")


def test_register_as_a_decorator_and_as_a_call():
    name = "test_register_as_a_decorator"
    try:
        assert register("callback", name)(len) is len
        assert registry("callback").find(name) is len
        with pytest.raises(ConfigError, match="exists already"):
            register("callback", name, max)
    finally:
        del registry("callback")._entries[name]
    with pytest.raises(ConfigError, match=r"'rewards' is not a group of the registry.*Did you mean 'reward'"):
        register("rewards", "x", len)


def test_installed_packages_register(plugins, rewards, monkeypatch):
    monkeypatch.setitem(registries._GROUPS, "reward", rewards)
    plugins("outside_one", "import motet\nmotet.register('reward', 'one', 1)\n")
    rewards.add("built_in", 0)
    assert rewards.find("built_in") == 0 and "outside_one" not in sys.modules
    assert rewards.find("one") == 1
    assert rewards.entries == {"built_in": 0, "one": 1}


def test_a_broken_plugin_is_named_and_breaks_nothing_else(plugins, rewards, monkeypatch):
    monkeypatch.setitem(registries._GROUPS, "reward", rewards)
    plugins("outside_broken", "import no_such_module\n")
    plugins("outside_one", "import motet\nmotet.register('reward', 'one', 1)\n")
    assert rewards.find("one") == 1
    with pytest.warns(UserWarning, match="of the package 'outside_broken' does not load: ModuleNotFoundError"):
        assert rewards.entries == {"one": 1}
    with pytest.raises(ConfigError, match=r"is not a reward; there are: one\. The motet plug-in 'outside_broken'"):
        rewards.find("two")


def test_two_packages_with_one_name(plugins, rewards, monkeypatch):
    monkeypatch.setitem(registries._GROUPS, "reward", rewards)
    rewards.add("built_in", 0)
    for name, entry in (("outside_one", "same"), ("outside_two", "same"), ("outside_three", "built_in")):
        plugins(name, f"import motet\nmotet.register('reward', '{entry}', '{name}')\n")
    with pytest.raises(
        ConfigError, match=r"the package .outside_(one|two). registered it, and so does the package .outside_(one|two)."
    ):
        rewards.find("same")
    with pytest.warns(UserWarning, match="outside_three"):
        assert rewards.entries["built_in"] == 0
    assert rewards.find("built_in") == 0


def test_importing_the_registry_imports_no_torch():
    code = "import sys, motet; motet.register; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_that_two_threads_ask_for_is_executed_once_and_whole(tmp_path):
    path = tmp_path / "slow_module.py"
    path.write_text("import time\ntime.sleep(0.2)\n\ndef mine():\n    pass\n")
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: load_attribute(f"{path}:mine", key="rewards.name"), range(2)))
    assert found[0] is found[1]


def test_threads_import_modules_at_the_same_time(monkeypatch):
    """The finder of zip files fails if two threads clear its cache at the same time."""
    clearing, most = [], []

    def clear() -> None:
        clearing.append(None)
        time.sleep(0.01)
        most.append(len(clearing))
        clearing.pop()

    def load(_: int) -> None:
        with pytest.raises(ConfigError, match="no module 'missing_module'"):
            load_attribute("missing_module:x", key="data.source")

    monkeypatch.setattr(importlib, "invalidate_caches", clear)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load, range(8)))
    assert most == [1] * 8
