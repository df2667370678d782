"""Suppress the progress bars and warnings of transformers and peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def suppress_hf_output() -> Iterator[None]:
    """In the `with` block only errors and downloads are shown; the settings are restored afterwards."""

    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled("huggingface_hub")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if downloads:  # which may take an hour
        enable_progress_bars("huggingface_hub")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
