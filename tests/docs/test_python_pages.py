"""The Python code of docs/how-to/python-api.md and docs/how-to/plugins.md, run as it is written."""

import pytest

import motet
from motet.core.registry import registry
from tests.docs.test_own_case import ROOT, blocks


@pytest.fixture
def clone(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_api(clone, capsys):
    names: dict[str, object] = {}
    for block in blocks("python-api", "python"):
        exec(block, names)
    assert "step 2: reward" in capsys.readouterr().out
    assert (clone / "runs" / "mine" / "checkpoints" / "step_000002").is_dir()
    assert motet.load_policy(clone / "runs" / "loop").version == 0


def test_plugins(clone, monkeypatch):
    (code,) = blocks("plugins", "python")
    for group in ("reward", "suite", "data"):
        assert registry(group).entries  # the built-in ones are loaded
        monkeypatch.setattr(registry(group), "_entries", dict(registry(group)._entries))
    exec(code, {"__name__": "page"})
    result = motet.train(
        "checkpoints/shapes_janus", data="sums", rewards="brevity", steps=1, eval={"suite": "mean_length"},
        sampling={"text": {"max_tokens": 8}}, algorithm={"num_generations": 2}, run={"prompts_per_step": 1},
        output="run",
    )  # fmt: skip
    assert result.after is not None and result.after["length"] > 0
