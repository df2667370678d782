"""One thread per process (two workers share two cores), nothing is fetched, and types are checked, shapes included.

Import nothing from motet at the top of this file: what is imported before the hook is not checked.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import typed

# Before torch is imported anywhere.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

if find_spec("beartype") is not None:  # the machine with a GPU may lack what only tests need
    typed.install("motet")

if find_spec("hypothesis") is not None:
    from hypothesis import settings

    settings.register_profile("motet", deadline=None, derandomize=True)
    settings.load_profile("motet")


@pytest.fixture(autouse=True)
def without_preflight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of most tests start without the checks before the first step, which take as long as a tiny run itself.

    `@pytest.mark.preflight` leaves them on; commands in processes of their own have them anyway.
    """
    if request.node.get_closest_marker("preflight") is None:
        from motet import preflight
        from motet.preflight.findings import PreflightReport

        monkeypatch.setattr(preflight, "run_preflight", lambda *_: PreflightReport((), 0.0))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Janus of a few thousand random weights, saved once; see `tests/runs.py`. Do not write into it."""
    from tests.runs import save_tiny_janus

    return save_tiny_janus(tmp_path_factory.mktemp("tiny") / "janus")
