"""Gold answers: valid values of the column `answer`, and a check of all rows before a run.

Without the check an invalid value would raise at the first well-formed answer to its row, maybe hours later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from motet.core.errors import DataError
from motet.rewards.base import BoundReward, ModelReward
from motet.rewards.text.answer_parsing import extract_answer, visible

F = TypeVar("F", bound=Callable[..., Any])
_PROBE = [{"role": "assistant", "content": "<answer>?</answer>"}]


def gold_texts(gold: Any) -> list[str]:
    """The accepted texts: one for a text or a number, all for a list.

    Datasets with whole solutions have the answer in an `<answer>` block. Raises DataError for another type, for an
    empty text and for an empty list.
    """
    golds = gold if isinstance(gold, list | tuple) else [gold]
    if not golds:
        raise DataError("The column `answer` holds an empty list.", fix="fill it in, or use null to skip the row.")
    for one in golds:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise DataError(
                f"The column `answer` holds a {type(one).__name__}, {gold!r:.80}, expected a text, a number "
                "or a list of them.",
                fix="store the accepted text (for a boolean, yes or no; for several, a list), or map "
                "data.columns.answer to such a column.",
            )
    texts = [extract_answer(str(one)) or str(one) for one in golds]
    if not all(visible(text) for text in texts):
        raise DataError(
            "A gold answer in the column `answer` is empty.", fix="fill it in, or use null to skip the row."
        )
    return texts


def validates_gold(function: F) -> F:
    """Mark a built-in reward that validates gold answers: it raises DataError when called on an invalid row."""
    function.validates_gold = True  # type: ignore[attr-defined]
    return function


def check_golds(rewards: Sequence[BoundReward], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Call the rewards that compare with gold answers on every row, given as its location and its columns.

    Raises DataError, with the location, for the first row that a reward cannot score.
    """
    checks = [check for check in map(_check_of, rewards) if check is not None]
    for place, row in rows if checks else ():
        for check in checks:
            try:
                check(row)
            except DataError as error:
                raise DataError(f"{place}: {error.problem}", fix=error.fix) from error


def _check_of(bound: BoundReward) -> Callable[[Mapping[str, Any]], Any] | None:
    function = bound.function
    if isinstance(function, ModelReward):
        return None if type(function).check_row is ModelReward.check_row else function.check_row
    if not getattr(function, "validates_gold", False):
        return None
    return lambda row: bound(prompts=[""], completions=[_PROBE], **{name: [value] for name, value in row.items()})
