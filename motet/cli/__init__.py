"""The door: `motet train | sft | pilot | eval | sample | ask | merge | convert | curate | bench | config | doctor`.

An error that a user can mend is one line on stderr and exit status 2 (MOTET_TRACEBACK=1 shows where it arose); an
interruption is status 130. Nothing heavy is imported before a command runs, and a recipe is read before anything heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from motet.errors import MotetError
from motet.interrupt import Stopped


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; `arguments` default to the process's own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from motet.cli.app import app

        raise SystemExit(app(arguments, standalone_mode=True))
    except MotetError as error:
        if os.environ.get("MOTET_TRACEBACK"):
            raise
        hint = "" if error.__cause__ is None else " (MOTET_TRACEBACK=1 shows the traceback.)"
        print(f"motet: {error}{hint}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"\n{stop}")
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        print("\nmotet: stopped.", file=sys.stderr)
        raise SystemExit(130) from None
