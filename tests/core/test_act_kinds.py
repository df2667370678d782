"""The records of the kinds of act agree with the classes that they name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from motet.config.sampling import KindSamplingConfig, SamplingConfig
from motet.core.act_kinds import ACT_KINDS, act_kind, kinds_making
from motet.core.errors import ConfigError
from motet.core.trajectory import ImageAct, TextAct

BUILT_IN = ("text", "image", "denoising")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_record_names_classes_that_fit(name: str) -> None:
    kind = ACT_KINDS.entries[name]
    assert issubclass(kind.act_class, {"text": TextAct, "image": ImageAct}[kind.makes])
    assert kind.act_class.kind == name
    assert issubclass(kind.settings_class, KindSamplingConfig)
    assert SamplingConfig.model_fields[name].annotation is kind.settings_class


def test_kinds_come_in_the_order_of_the_registry() -> None:
    assert kinds_making("image", {"denoising", "image", "text"}) == ["image", "denoising"]
    assert kinds_making("text", {"denoising"}) == []


def test_interactive_settings_can_be_overridden() -> None:
    kind = act_kind("denoising")
    assert kind.sampling(**kind.interactive).temperature == 0
    assert kind.sampling(num_steps=3).num_steps == 3


def test_an_unknown_kind_is_an_error_that_lists_the_kinds() -> None:
    with pytest.raises(ConfigError, match=r"must be one of: text, image, denoising.*Did you mean 'image'"):
        act_kind("images")


def test_records_import_no_torch() -> None:
    code = "import sys, motet.core.act_kinds, motet.config; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
