"""On a terminal downloads show their bars, and nothing else of Hugging Face's libraries does."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
import motet.cli
sys.stderr.isatty = lambda: TERMINAL
motet.cli._show_bars_of_downloads_only()
from huggingface_hub.utils import are_progress_bars_disabled
from motet.weights.hf_output import suppress_hf_output
from transformers.utils import logging
def shown():
    return not are_progress_bars_disabled("huggingface_hub.http_get"), logging.is_progress_bar_enabled()
before = shown()
with suppress_hf_output():
    inside = shown()
print(before, inside, shown())
"""


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_bars_of_downloads_are_shown_on_a_terminal(terminal):
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    code = CODE.replace("TERMINAL", str(terminal))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == " ".join([str((terminal, False))] * 3)
