"""Functions and dataclasses of a package get their types checked, with dimensions where there are arrays."""

import importlib
import sys

import pytest
import torch

SOURCE = """
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Pair:
    name: str
    both: tuple[Float[Tensor, "N"], Float[Tensor, "N"]]

    def renamed(self, name: str) -> Pair:
        return Pair(name, self.both)


def length(text: str) -> int:
    return text if text == "wrong" else len(text)


def add(one: Float[Tensor, "N"], other: Float[Tensor, "N"] | None) -> Float[Tensor, "N"]:
    return one if other is None else (one + other)[: len(one)]


def grow(one: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    return one.repeat(2)


def price(value: Decimal, text: str) -> Iterator[str]:
    yield text


def prices(text: str) -> Iterator[Decimal]:
    yield text


def anything(text: str) -> Any:
    yield text
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    pytest.importorskip("beartype")
    folder = tmp_path_factory.mktemp("package")
    (folder / "motet_typed.py").write_text(SOURCE)
    from jaxtyping import install_import_hook

    sys.path.insert(0, str(folder))
    try:
        with install_import_hook("motet_typed", "beartype.beartype"):
            yield importlib.import_module("motet_typed")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("motet_typed", None)


TWO, THREE = torch.zeros(2), torch.zeros(3)


def test_what_has_the_right_type_passes(package):
    assert package.length("four") == 4
    assert package.add(TWO, TWO).shape == package.add(TWO, None).shape == (2,)
    assert package.add(THREE, THREE).shape == (3,)  # a call's dimensions are its own
    assert package.Pair("a", (TWO, TWO)).renamed("b").name == "b"
    assert list(package.price("any", "text")) == ["text"]  # Decimal is unknown when the module runs
    assert list(package.prices("text")) == list(package.anything("text")) == ["text"]


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.length(4),
        lambda p: p.length("wrong"),
        lambda p: p.add(TWO, THREE),
        lambda p: p.add(TWO, TWO.long()),
        lambda p: p.grow(TWO),
        lambda p: p.Pair(4, (TWO, TWO)),
        lambda p: p.Pair("a", (TWO, THREE)),
        lambda p: p.Pair("a", (TWO, TWO)).renamed(4),
        lambda p: list(p.price("any", 4)),
    ],
    ids=["parameter", "result", "dimension", "dtype", "result_dimension", "field", "fields", "method", "unresolved"],
)
def test_what_has_another_type_is_rejected(package, call):
    with pytest.raises(Exception, match="violates type hint"):
        call(package)


def test_functions_say_their_types_as_written(package):
    assert package.length.__annotations__ == {"text": "str", "return": "int"}
    assert package.add.__name__ == "add"
