"""Gold answers: what the column `answer` may hold, and a check of all rows before a run begins.

A wrong type is otherwise met when the first well-formed answer to its row is judged, which may be hours later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from motet.core.errors import DataError
from motet.rewards.base import BoundReward, ModelReward
from motet.rewards.text.answer_parsing import extract_answer, visible

F = TypeVar("F", bound=Callable[..., Any])
_TRIED = [{"role": "assistant", "content": "<answer>?</answer>"}]


def gold_texts(gold: Any) -> list[str]:
    """The texts any of which is right: of a text or a number one, of a list all.

    Datasets that give whole solutions hold the answer in an `<answer>` block. Raises DataError for another type, for an
    empty text and for an empty list.
    """
    golds = gold if isinstance(gold, list | tuple) else [gold]
    if not golds:
        raise DataError("The column `answer` holds an empty list.", fix="fill it in, or use null: not judged.")
    for one in golds:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise DataError(
                f"The column `answer` holds a {type(one).__name__}, {gold!r:.80}, not a text, a number or a list of "
                "them.",
                fix="store the words that are right (of a boolean, yes or no; of several, a list), or map "
                "data.columns.answer to such a column.",
            )
    texts = [extract_answer(str(one)) or str(one) for one in golds]
    if not all(visible(text) for text in texts):
        raise DataError("A gold answer in the column `answer` is empty.", fix="fill it in, or use null: not judged.")
    return texts


def validates_gold(function: F) -> F:
    """Mark a built-in reward that can be tried on a row before a run: it raises DataError if the row is wrong."""
    function.validates_gold = True  # type: ignore[attr-defined]
    return function


def check_golds(rewards: Sequence[BoundReward], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Try the rewards that compare with gold answers on every row, given as where it stands and its columns.

    Raises DataError, with the place of the row, for the first one that a reward cannot judge.
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
    return lambda row: bound(prompts=[""], completions=[_TRIED], **{name: [value] for name, value in row.items()})
