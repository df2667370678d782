"""What a clause is, and how one is checked."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from motet.testing.examples import Examples, NotChecked
from motet.testing.report import ClauseResult, Violation


@dataclass(frozen=True)
class Clause:
    """One promise of a policy. `check` yields what breaks it, and raises NotChecked where it does not apply."""

    name: str
    check: Callable[[Examples], Iterator[Violation]]

    def result(self, examples: Examples) -> ClauseResult:
        """The clause checked on a policy; an exception that it raises is a violation too."""
        violations: list[Violation] = []
        try:
            violations += self.check(examples)
        except NotChecked as reason:
            if not violations:
                return ClauseResult(self.name, "not checked", str(reason))
        except Exception as error:  # whatever the policy raises
            violations.append(_unexpected(error))
        return ClauseResult(
            self.name, "violated" if violations else "holds", violations=tuple(dict.fromkeys(violations))
        )


def _unexpected(error: Exception) -> Violation:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Violation(
        f"It raised {type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno}).",
        "make the call return; call the method by itself to see the whole traceback.",
    )
