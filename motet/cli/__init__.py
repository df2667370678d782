"""Command line: `motet train | sft | sweep | eval | sample | ask | studio | serve | serve-rewards | merge | convert |
curate | bench | estimate | config | data | report | rewards | reward | card | push | demo | doctor`.

An error that the user can fix is one line on stderr and exit status 2 (MOTET_TRACEBACK=1 shows its traceback); an
interruption is status 130. Heavy libraries are imported only when a command runs, after its recipe has been checked.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from motet.core.errors import ConfigError, MotetError
from motet.core.printable import printable, without_passwords
from motet.distributed.environment import global_rank, launched_by_torchrun
from motet.report.safe_streams import open_standard_streams, safe_output
from motet.report.terminal import say
from motet.training.signals import Stopped, end_now, threads_hold


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; `arguments` default to `sys.argv[1:]`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    _show_bars_of_downloads_only()
    open_standard_streams()
    warnings.formatwarning = _one_line
    try:
        given = sys.argv[1:] if arguments is None else arguments
        _require_one_process(given)
        from motet.cli.app import app

        raise SystemExit(app(arguments, standalone_mode=True))
    except MotetError as error:
        if os.environ.get("MOTET_TRACEBACK"):
            raise
        hint = "" if error.__cause__ is None else " (MOTET_TRACEBACK=1 shows the traceback.)"
        if not error.told:
            _say(f"{_name()}: {error}{hint}", error=True)
        raise SystemExit(2) from None
    except Stopped as stop:
        if global_rank() == 0:
            _say(f"\n{without_passwords(str(stop))}")
        if isinstance(stop.__context__, KeyboardInterrupt) and threads_hold():
            end_now()
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        _say("\nmotet: stopped.", error=True)
        if threads_hold():
            end_now()
        raise SystemExit(130) from None


def _show_bars_of_downloads_only() -> None:
    """Of the bars of Hugging Face's libraries, those of downloads are shown, and only on a terminal."""
    if not (sys.stderr and sys.stderr.isatty()):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    elif "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

        disable_progress_bars()  # transformers asks when it is imported
        enable_progress_bars("huggingface_hub")


def _require_one_process(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a command that several processes cannot share."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if launched_by_torchrun() and command not in ("train", "sft", None):
        raise ConfigError(
            f"torchrun started several processes, and `motet {command}` runs in one.",
            fix="start it without torchrun; `motet train` and `motet sft` are for several processes.",
        )


def _one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    """A warning without its location in the source."""
    text = without_passwords(printable(" ".join(str(message).split())))
    return f"{_name()}: {'warning' if category is UserWarning else category.__name__}: {text}\n"


def _name() -> str:
    """Who speaks: with several processes, those that are not the main one say their rank."""
    return f"motet [rank {global_rank()}]" if global_rank() else "motet"


def _say(text: str, *, error: bool = False) -> None:
    """Print; if the output is closed, the exit status still reports the outcome."""
    with safe_output():
        say(*text.split("\n"), error=error)
