"""Every error that motet raises on purpose.

    MotetError
    ├── ConfigError       a recipe or an override is wrong           (names key, value, fix)
    ├── DataError         a dataset row or a file is wrong           (names row, column, fix)
    ├── CheckpointError   a checkpoint cannot be read or written     (names path, fix)
    ├── RewardError       a reward violates its contract                (names reward, fix)
    ├── ContextError      a prompt does not fit the model            (names length, limit, fix)
    ├── RunFolderError    the output folder cannot be used           (names folder, fix)
    ├── OutputError       a requested file cannot be written (names file, fix)
    ├── ProcessError      another process of the run failed or hangs (names rank, phase)
    ├── PreflightError    the checks before step 1 found a fault (names checks, causes, fixes)
    └── NumericsError     a number that must be finite is not        (names quantity, cause)

A failed *trajectory* is not an error: it is data (`motet.core.trajectory.Failure`).
The command line prints a MotetError as one line and exits with 2. Imports no torch.
"""

from typing import Any

from motet.core.printable import printable, without_passwords


class MotetError(Exception):
    """An error that the user can fix. `problem` says what is wrong, `fix` how to fix it, in the imperative."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix
        self.told = False
        """Whether another process of the run tells the user the same."""

    def __reduce__(self) -> tuple[Any, ...]:
        """How it passes from one process to another."""
        return _rebuild, (type(self), self.problem, self.fix)

    def __str__(self) -> str:
        """Both, safe to print: what models, files and users wrote is escaped, passwords in addresses are hidden."""
        return without_passwords(printable(f"{self.problem} Fix: {self.fix}"))


def _rebuild(kind: type[MotetError], problem: str, fix: str) -> MotetError:
    return kind(problem, fix=fix)


class ConfigError(MotetError):
    """A recipe or an override is wrong."""


class DataError(MotetError):
    """A dataset row, column or file is wrong."""


class CheckpointError(MotetError):
    """A checkpoint cannot be read or written."""


class RewardError(MotetError):
    """A reward function violates its contract."""


class ContextError(MotetError):
    """A prompt does not fit the model's context."""


class RunFolderError(MotetError):
    """The output folder cannot be used."""


class OutputError(MotetError):
    """A requested file cannot be written."""


class ProcessError(MotetError):
    """Another process of the run failed, or did not answer in time."""


class PreflightError(MotetError):
    """The checks before the first step found a fault."""


class NumericsError(MotetError):
    """A number that must be finite is not."""


CORRECT_ROW = (
    "correct or replace the row, or remove it unless a run is to be resumed: that needs as many rows as before."
)
"""The fix for a row of a run."""
