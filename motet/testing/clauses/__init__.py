"""The clauses of a policy's contract, each a function from examples to violations."""

from motet.testing.clauses.acting import ACTING
from motet.testing.clauses.base import Clause
from motet.testing.clauses.rejecting import REJECTING
from motet.testing.clauses.replaying import REPLAYING
from motet.testing.clauses.saving import SAVING
from motet.testing.clauses.training import TRAINING

CLAUSES: tuple[Clause, ...] = (*ACTING, *REPLAYING, *REJECTING, *TRAINING, *SAVING)
"""In the order in which they are checked."""

__all__ = ["CLAUSES", "Clause"]
