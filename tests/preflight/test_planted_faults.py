"""Every planted fault is found by name: stopped, or flagged."""

from pathlib import Path

import pytest

from tests.preflight import faults_of_data, faults_of_policies, faults_of_runs, faults_of_targets
from tests.preflight.planting import FAULTS, Fault, World, check_fault

assert faults_of_data and faults_of_policies and faults_of_runs and faults_of_targets
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "preflight.md"


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: one.title)
def test_a_planted_fault_is_found(one: Fault, world: World) -> None:
    check_fault(one, world)


def test_the_page_lists_what_is_tested() -> None:
    lines = PAGE.read_text(encoding="utf-8").split("## Planted faults")[1].splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    assert rows[1:] == [one.row() for one in FAULTS]
    assert len(FAULTS) >= 80
