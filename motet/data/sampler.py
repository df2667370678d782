"""The order in which a run meets its rows: shuffled, endless, and resumable to the row."""

from __future__ import annotations

import random
import sys
from functools import cached_property
from typing import Any

from motet.core.errors import CheckpointError
from motet.core.printable import printable
from motet.core.task import Task
from motet.data.digest import digest_of, what_changed
from motet.data.rows import Rows


class ResumableSampler:
    """Walks rows in an order that depends on (seed, epoch) alone, on any machine and in any Python version.

    Finite rows are reshuffled every epoch; endless ones come as 0, 1, 2, ... (they are random already). A task's
    `index` is `epoch * size + row`: a row that comes again, even within one step, draws other noise than before.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.drawn = 0
        self._order: tuple[int, list[int]] | None = None  # epoch, its permutation

    @property
    def epoch(self) -> float:
        """Passes over the rows so far; 0 for endless ones."""
        return self.drawn / self.rows.size if self.rows.size else 0.0

    def next(self, P: int) -> list[Task]:
        """The next P tasks, over the end of an epoch if need be."""
        tasks = [self._task(number) for number in range(self.drawn, self.drawn + P)]
        self.drawn += P  # after reading: a row that cannot be read does not move the cursor
        return tasks

    def state_dict(self) -> dict[str, Any]:
        """JSON-able: where the walk stands, and over what."""
        return {"seed": self.seed, "size": self.rows.size, "drawn": self.drawn, "digest": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` stood; a line on stderr says which rows have changed since.

        Raises CheckpointError when seed or number of rows differ: the order would too.
        """
        if state.get("seed") != self.seed:
            raise CheckpointError(
                f"The checkpoint's data has seed {state.get('seed')}, this run's has {self.seed}.",
                fix="resume with the run's own run.seed, or start a new run.",
            )
        then, size, changed = state.get("digest"), state.get("size"), None
        if then is not None and size is not None and self._digest is not None:
            changed = what_changed(then, self._digest, self.rows, size)
        if size != self.rows.size:
            where = f"; {changed}" if changed else ""
            raise CheckpointError(
                f"The checkpoint's data has size {size}, this run's has {self.rows.size}{where}.",
                fix="resume with the same data.source and data.size and as many rows: put another row in the place of "
                "one that you removed. Or start a new run.",
            )
        if changed:
            text = f"motet: {self.rows.source.name} is not what the checkpoint was trained on: {changed}. "
            print(printable(f"{text}Going on with the rows as they are now."), file=sys.stderr)
        self.drawn = int(state["drawn"])

    @cached_property
    def _digest(self) -> str | None:
        return digest_of(self.rows)

    def _task(self, number: int) -> Task:
        if self.rows.size is None:
            return self.rows.task(number)
        epoch, position = divmod(number, self.rows.size)
        row = self._permutation(epoch, self.rows.size)[position]
        return self.rows.task(row, index=epoch * self.rows.size + row)

    def _permutation(self, epoch: int, size: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            # Python promises only `random()` and string seeding to stay as they are, not `shuffle`.
            draws = random.Random(f"motet {self.seed} {epoch}")
            keys = [draws.random() for _ in range(size)]
            self._order = (epoch, sorted(range(size), key=keys.__getitem__))
        return self._order[1]
