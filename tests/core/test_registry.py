"""Finding things by name: what the rewards' and scenarios' own tests do not reach."""

import pytest

from motet.core.errors import ConfigError
from motet.core.registry import Registry, did_you_mean, first_line


def test_did_you_mean():
    assert did_you_mean("anser", ["answer", "drawing"]) == " Did you mean 'answer'?"
    assert did_you_mean("answer", ["ANSWER"]) == " Did you mean 'ANSWER'?"
    assert did_you_mean("zzz", ["answer"]) == did_you_mean("x", []) == ""


def test_first_line():
    assert first_line(ValueError("\n one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"


def test_names_are_taken_once():
    registry = Registry("reward", key="rewards.name")
    registry.add("a", 1)
    with pytest.raises(ConfigError, match="'a' exists already"):
        registry.add("a", 2)
    with pytest.raises(ConfigError, match="contains a colon"):
        registry.add("a:b", 2)
    assert registry.find("a") == 1 and registry.entries == {"a": 1}


def test_attributes_of_attributes():
    registry = Registry("reward", key="rewards.name")
    assert registry.find("os:path.join")("a", "b") == "a/b"
