"""Shuffled, infinite, resumable sampling of rows."""

from __future__ import annotations

import random
import sys
from functools import cached_property
from typing import Any

from motet.core.errors import CheckpointError
from motet.core.printable import printable
from motet.core.task import Task
from motet.data.digest import describe_changes, digest_rows
from motet.data.rows import Rows


class ResumableSampler:
    """Samples rows in an order that depends on (seed, epoch) alone, on any machine and in any Python version.

    Finite rows are reshuffled every epoch; infinite ones come as 0, 1, 2, ... (they are random already). A task's
    `index` is `epoch * size + row`: a row that is repeated, even within one step, gets other sampling noise.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.num_consumed = 0
        self._order: tuple[int, list[int]] | None = None  # epoch, its permutation

    @property
    def epoch(self) -> float:
        """Passes over the rows so far; 0 for infinite ones."""
        return self.num_consumed / self.rows.size if self.rows.size else 0.0

    def next(self, P: int) -> list[Task]:
        """The next P tasks; wraps around at the end of an epoch."""
        tasks = self.peek(P)
        self.num_consumed += P  # after reading: a row that cannot be read does not advance the state
        return tasks

    def peek(self, P: int) -> list[Task]:
        """The tasks that `next` will return, without advancing."""
        return [self._task(number) for number in range(self.num_consumed, self.num_consumed + P)]

    def state_dict(self) -> dict[str, Any]:
        """The position in the data and the data's identity, JSON-serialisable."""
        return {"seed": self.seed, "size": self.rows.size, "drawn": self.num_consumed, "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; a warning on stderr says which rows have changed since.

        Raises CheckpointError when the seed or the number of rows differs: so would the order.
        """
        if state.get("seed") != self.seed:
            raise CheckpointError(
                f"The checkpoint's data has seed {state.get('seed')}, this run's has {self.seed}.",
                fix="resume with the run's own run.seed, or start a new run.",
            )
        then, size, changed = state.get("digest"), state.get("size"), None
        if then is not None and size is not None and self._digest is not None:
            changed = describe_changes(then, self._digest, self.rows, size)
        if size != self.rows.size:
            where = f"; {changed}" if changed else ""
            raise CheckpointError(
                f"The checkpoint's data has size {size}, this run's has {self.rows.size}{where}.",
                fix="resume with the same data.source and data.size and as many rows (replace removed ones), or "
                "start a new run.",
            )
        if changed:
            text = f"motet: {self.rows.source.name} differs from the data of the checkpoint: {changed}. "
            print(printable(f"{text}Continuing with the present rows."), file=sys.stderr)
        self.num_consumed = int(state["drawn"])

    @cached_property
    def _digest(self) -> str | None:
        return digest_rows(self.rows)

    def _task(self, number: int) -> Task:
        if self.rows.size is None:
            return self.rows.task(number)
        epoch, position = divmod(number, self.rows.size)
        row = self._permutation(epoch, self.rows.size)[position]
        return self.rows.task(row, index=epoch * self.rows.size + row)

    def _permutation(self, epoch: int, size: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            # Python promises only `random()` and string seeding to stay unchanged, not `shuffle`.
            rng = random.Random(f"motet {self.seed} {epoch}")
            keys = [rng.random() for _ in range(size)]
            self._order = (epoch, sorted(range(size), key=keys.__getitem__))
        return self._order[1]
