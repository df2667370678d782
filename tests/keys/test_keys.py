"""Every key of a recipe does something: a run in which it is changed leaves something else behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from motet.config.keys import walk
from motet.config.options import walk_options
from motet.training.advantage_estimators import ADVANTAGES
from motet.training.losses import LOSSES
from tests.keys.bases import BASES, Bench
from tests.keys.outcome import Outcome, differences, outcome_of, same_parts
from tests.keys.table import FAST, SLOW, TABLE, Shows

CHOICES = {"algorithm.loss": LOSSES, "algorithm.advantage": ADVANTAGES}
OPTIONS = {
    f"{key}.{name}"
    for key, known in CHOICES.items()
    for e in known.entries.values()
    for name in e.Settings.model_fields
}
KEYS = [*(key for key, _ in walk()), *dict.fromkeys(key for key, _, _ in walk_options()), *sorted(OPTIONS)]
HOW = """Every key of a recipe needs a line in TABLE of tests/keys/table.py that says what a changed value changes:

    "{key}": Shows(PART, VALUE, BASE, GIVEN)

PART is what must differ (metrics/NAME, weights, samples, files, before, work/NAME, ...: see tests/keys/outcome.py),
VALUE what the key is changed to, BASE a recipe of tests/keys/bases.py (default: janus), GIVEN other keys that both runs
set. Try it: pytest tests/keys -k "{key}"."""


class Runs:
    """Outcomes of tiny runs; equal recipes are run once."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.known, self.count = bench, dict[str, Outcome](), 0

    def outcome(self, base: str, changes: dict[str, Any], track: bool = False) -> Outcome:
        known = json.dumps([base, changes, track])
        if known not in self.known:
            self.known[known] = self.fresh(base, changes, track)
        return self.known[known]

    def fresh(self, base: str, changes: dict[str, Any], track: bool = False) -> Outcome:
        self.count += 1
        stage = "sft" if base.endswith("sft") else "train"
        return outcome_of(self.bench.recipe(base, changes, track), stage, self.bench.folder / f"run_{self.count}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(Bench(tmp_path_factory.mktemp("keys")))


def moved_out(key: str) -> str:
    """The key without tracks that says the same as one of a track."""
    key = key.removeprefix("tracks.TRACK.")
    return "run.prompts_per_step" if key == "prompts_per_step" else key


def line_of(key: str) -> tuple[Shows, bool]:
    """The table's line for a key, and whether it is to be moved into a track."""
    for name, track in ((key, False), (moved_out(key), True)):
        if name in TABLE:
            return TABLE[name], track
    pytest.fail(HOW.format(key=key), pytrace=False)


def cases() -> Iterator[Any]:
    for key in KEYS:
        slow = key.startswith(tuple(f"{section}." for section in SLOW)) and key not in FAST
        yield pytest.param(key, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize("key", list(cases()))
def test_a_changed_key_shows(key, runs):
    line, track = line_of(key)
    place = line.at or moved_out(key)
    plain = runs.outcome(line.base, line.given, track)
    changed = runs.outcome(line.base, line.given | {place: line.value}, track)
    assert "refused" not in plain, plain["refused"]
    if "refused" in changed and line.part != "refused":
        pytest.fail(f"{place}={line.value!r} is refused: {changed['refused']}", pytrace=False)
    part = line.part.replace("metrics/reward", "metrics/TRACK/reward") if track else line.part
    if not same_parts(plain, changed, part):
        return
    pytest.fail(
        f"{place}={line.value!r} is ignored: {part} is as without it. "
        f"What differs: {', '.join(differences(plain, changed)) or 'nothing'}.",
        pytrace=False,
    )


def test_no_line_is_about_a_key_that_is_gone():
    assert set(TABLE) <= set(KEYS) and set(KEYS) >= FAST


@pytest.mark.parametrize("base", BASES)
def test_the_same_recipe_leaves_the_same_behind(base, runs):
    """Otherwise a difference would prove nothing."""
    assert differences(runs.outcome(base, {}), runs.fresh(base, {})) == []
