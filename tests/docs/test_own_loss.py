"""docs/how-to/own-loss.md: the loss on the page trains, and has the options that the page gives it."""

import pytest
import yaml

from motet.core.errors import ConfigError
from tests.docs.test_own_case import blocks
from tests.runs import mapping, run_loop

PAGE = "own-loss"


def test_the_loss_of_the_page_trains(tiny_checkpoint, tmp_path, monkeypatch):
    (code,), (recipe,) = blocks(PAGE, "python"), blocks(PAGE, "yaml")
    (tmp_path / "loss.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    algorithm = yaml.safe_load(recipe)["algorithm"]
    content = mapping(tiny_checkpoint, algorithm=algorithm, run={"steps": 2})
    first, second = run_loop(content, tmp_path / "run")
    assert {"text/loss", "image/bounded"} <= first.keys() and first["grad_norm"] > 0 and second["loss"] != first["loss"]
    content["algorithm"]["loss"] = {**algorithm["loss"], "bond": 1.0}
    with pytest.raises(ConfigError, match=r"did you mean 'algorithm\.loss\.bound'"):
        run_loop(content, tmp_path / "other")
