"""Suites of one's own: a function of the policy and the settings, by path, name or as it is."""

import pytest

import motet
from motet.core.errors import ConfigError
from motet.core.registry import registry
from motet.training.suites import FunctionSuite, resolve_suite
from tests.api.test_train import train


def lengths(policy, settings, factor=1.0):
    """The mean length of answers: a function of the policy, not of the training data."""
    acts = policy.generate_text("how many circles?", n=2, seed=settings.recipe.eval.seed, max_tokens=4)
    return {"length": factor * sum(act.num_actions for act in acts) / len(acts), "quick": float(settings.quick)}


class Recorder:
    def __init__(self):
        self.seen = []

    def on_eval(self, step, metrics):
        self.seen.append((step, dict(metrics)))


def test_a_function_as_a_suite(tiny_checkpoint, tmp_path, capsys):
    recorder = Recorder()
    result = train(
        tiny_checkpoint, tmp_path / "run", callbacks=[recorder],
        eval={"suite": {"name": lengths, "factor": 10}, "every": 1}
    )  # fmt: skip
    assert set(result.before) == set(result.after) == {"length", "quick"} and result.before["length"] >= 10
    assert [step for step, _ in recorder.seen] == [0, 1, 2, 2]
    assert recorder.seen[0][1] == {"eval/length": result.before["length"], "eval/quick": 0.0}
    assert [line["eval/quick"] for line in result.metrics] == [1.0, 1.0]
    assert "length" in capsys.readouterr().out


def test_suites_by_name_and_what_is_not_one(tiny_checkpoint, tmp_path, monkeypatch):
    registry("suite").find("shapes")
    entry = type(registry("suite")._entries["shapes"])(lengths, "me")
    monkeypatch.setitem(registry("suite")._entries, "lengths", entry)
    assert train(tiny_checkpoint, tmp_path / "run", eval={"suite": "lengths"}).after is not None
    with pytest.raises(ConfigError, match="'lengts' is not a suite"):
        train(tiny_checkpoint, tmp_path / "other", eval={"suite": "lengts"})
    with pytest.raises(ConfigError, match=r"'os:sep' leads to '/', which is not a suite"):
        train(tiny_checkpoint, tmp_path / "other", eval={"suite": "os:sep"})


@pytest.mark.parametrize(
    ("suite", "problem"),
    [
        (lambda policy, settings: 3.0, "returned 3.0, not a mapping of metrics to numbers"),
        (lambda policy, settings: {"a": "b"}, "not a mapping of metrics"),
        (lambda policy, settings: 1 / 0, "raised ZeroDivisionError"),
        (lambda policy: {}, "raised TypeError"),
    ],
)
def test_broken_suites(suite, problem, tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        train(tiny_checkpoint, tmp_path / "run", eval={"suite": suite})
    assert not (tmp_path / "run").exists()


def test_the_built_in_suites_are_registered(tiny_checkpoint):
    assert set(registry("suite").entries) >= {"shapes", "rewards"}
    recipe = motet.Recipe.model_validate({"policy": {"path": "x"}, "run": {"steps": 1}})
    assert resolve_suite(recipe) is None and not isinstance(registry("suite").find("shapes"), FunctionSuite)
