"""`motet.train` and `motet.sft`: the code of the command line, with Python objects in place of names."""

import json

import pytest
import yaml
from datasets import Dataset

import motet
from motet.core.errors import ConfigError, DataError
from tests.fake_rewards import reddish, spacious
from tests.runs import mapping, metrics, motet_command, write_recipe

ROWS = [{"question": f"{n} + 1?", "answer": str(n + 1), "solution": f"<answer>{n + 1}</answer>"} for n in range(6)]
SHORT = {"steps": 2, "prompts_per_step": 2, "seed": 3}


def length(prompts, completions, **columns):
    return [float(len(str(completion[-1]["content"]))) for completion in completions]


def train(checkpoint, output, **changes):
    given = {
        "scenario": "answer",
        "data": ROWS,
        "rewards": length,
        "sampling": {"text": {"max_tokens": 6}},
        "run": SHORT,
    }
    given |= {"algorithm": {"num_generations": 2}, "optimizer": {"learning_rate": 0.003}, **changes}
    return motet.train({"path": str(checkpoint), "device": "cpu"}, output=output, **given)


def test_the_command_line_and_python_give_the_same_run(tiny_checkpoint, tmp_path, capsys):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    assert motet_command(capsys, "train", recipe, "--output", tmp_path / "command").code == 0
    content = mapping(tiny_checkpoint)
    rewards = [{"name": reddish, "acts": ["image"]}, {"name": spacious, "acts": ["answer"]}]
    motet.train(**{**content, "rewards": rewards}, output=tmp_path / "python")
    assert metrics(tmp_path / "command") == metrics(tmp_path / "python")
    motet.train(recipe=recipe, output=tmp_path / "file")
    assert metrics(tmp_path / "command") == metrics(tmp_path / "file")


def test_supervised_runs_are_the_same_too(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    content = mapping(tiny_checkpoint, scenario="answer", rewards=None, algorithm=None, run=SHORT)
    content["data"] = {"source": str(tmp_path / "rows.jsonl"), "targets": {"answer": "solution"}}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(content))
    assert motet_command(capsys, "sft", tmp_path / "sft.yaml", "--output", tmp_path / "command").code == 0
    motet.sft(**{**content, "data": ROWS}, targets={"answer": "solution"}, output=tmp_path / "python")
    assert metrics(tmp_path / "command") == metrics(tmp_path / "python")


@pytest.mark.parametrize("data", [ROWS, Dataset.from_list(ROWS), lambda config, seed: ROWS, {"source": ROWS}])
def test_data_objects(data, tiny_checkpoint, tmp_path):
    result = train(tiny_checkpoint, tmp_path / "run", data=data)
    assert result.checkpoint == tmp_path / "run" / "checkpoints" / "step_000002"
    assert [line["step"] for line in result.metrics] == [0, 1]
    assert "rewards/length/mean" in result.metrics[0]


def test_objects_of_every_sort(tiny_checkpoint, tmp_path):
    @motet.scenario("twice", acts={"first": "text", "second": "text"}, columns=("question",))
    def twice(task):
        yield motet.GenerateText(task.question, name="first"), motet.GenerateText(task.question, name="second")

    events: list[tuple] = []

    class Recorder:
        def on_run_start(self, recipe, folder):
            events.append(("start", folder))

        def on_step_end(self, step, metrics):
            events.append(("step", step, metrics["reward"]))

        def on_checkpoint(self, step, checkpoint):
            events.append(("checkpoint", checkpoint.name))

        def on_run_end(self, step, metrics):
            events.append(("end", step, metrics["reward"]))

    policy = motet.load_policy(str(tiny_checkpoint))
    before = {name: weight.detach().clone() for name, weight in policy.trainable().items()}
    result = motet.train(
        policy, scenario=twice, data=ROWS, rewards=[{"name": length, "acts": ["first"]}, length],
        sampling={"text": {"max_tokens": 6}}, algorithm={"num_generations": 2}, run=SHORT, callbacks=[Recorder],
        output=tmp_path / "run",
    )  # fmt: skip
    assert result.policy is policy
    assert any(not weight.equal(before[name]) for name, weight in policy.trainable().items())
    kinds = [event[0] for event in events]
    assert kinds == ["start", "step", "step", "checkpoint", "end"]
    assert events[0][1] == tmp_path / "run" and events[-1][1] == 2
    names = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert names["scenario"] == "python:twice" and names["policy"]["path"] == "python:JanusPolicy"
    assert [reward["name"] for reward in names["rewards"]] == ["python:length", "python:length"]


def test_a_callback_that_raises_is_reported_once_and_loses_nothing(tiny_checkpoint, tmp_path):
    class Broken:
        def on_step_end(self, step, metrics):
            raise ValueError("no network")

    with pytest.warns(UserWarning, match=r"The callback Broken raised ValueError: no network in on_step_end") as warned:
        result = train(tiny_checkpoint, tmp_path / "run", callbacks=[Broken()])
    assert len(result.metrics) == 2 and sum("Broken" in str(one.message) for one in warned) == 1


def test_what_is_not_a_callback(tiny_checkpoint, tmp_path):
    class Watcher:
        def on_step(self, step, metrics):
            pass

    with pytest.raises(ConfigError, match=r"run.callbacks: 'python:Watcher' is a Watcher without any of the methods"):
        train(tiny_checkpoint, tmp_path / "run", callbacks=[Watcher()])


def test_a_run_is_resumed_from_python_and_not_from_the_command_line(tiny_checkpoint, tmp_path, capsys):
    whole = train(tiny_checkpoint, tmp_path / "whole", steps=4)
    train(tiny_checkpoint, tmp_path / "run", steps=2)
    with pytest.raises(motet.core.errors.RunFolderError):
        train(tiny_checkpoint, tmp_path / "run", steps=4)
    answer = motet_command(capsys, "train", tmp_path / "run" / "recipe.yaml", "--output", tmp_path / "run", "--resume")
    assert answer.code == 2 and "'python:rows' is an object of the Python program" in answer.err
    resumed = train(tiny_checkpoint, tmp_path / "run", steps=4, resume=True)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole") and len(resumed.metrics) == len(whole.metrics) == 4


def test_rows_may_hold_images_and_are_checked(tiny_checkpoint, tmp_path):
    from PIL import Image

    rows = [{**row, "image": Image.new("RGB", (16, 16), "red")} for row in ROWS]
    train(tiny_checkpoint, tmp_path / "run", data=rows, steps=2)
    train(tiny_checkpoint, tmp_path / "run", data=[dict(row) for row in rows], steps=3, resume=True)
    with pytest.raises(DataError, match="Row 1 of rows, column 'question', contains None"):
        train(tiny_checkpoint, tmp_path / "other", data=[ROWS[0], {"answer": "2"}])
    with pytest.raises(DataError, match=r"data.source='python:rows' is \[1, 2\]; expected a list of rows"):
        train(tiny_checkpoint, tmp_path / "other", data=[1, 2])


def test_policies_that_are_functions_or_no_policies(tiny_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        f"import motet\ndef make(config):\n    return motet.load_policy({str(tiny_checkpoint)!r})\nnothing = 3\n"
    )
    assert "text" in motet.load_policy(f"{tmp_path}/mine.py:make").kinds
    with pytest.raises(ConfigError, match="leads to a int, which is not a policy: it has no version, kinds, act"):
        motet.load_policy(f"{tmp_path}/mine.py:nothing")
    policy = motet.load_policy(str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"policy.train has no effect: policy.path='python:JanusPolicy' is a policy"):
        motet.train(
            {"path": policy, "train": ["lm_head"]}, data=ROWS, rewards=length, run=SHORT, output=tmp_path / "run"
        )


def test_evaluate(tiny_checkpoint, tmp_path):
    policy = motet.load_policy(str(tiny_checkpoint))
    few = {"sampling": {"text": {"max_tokens": 6}}, "eval": {"size": 4, "samples_per_item": 2}}
    table = motet.evaluate(policy, scenario="answer", data=ROWS, rewards=length, **few)
    assert table["answer"]["length"]["rows"] == 4 and len(table["answer"]["length"]["by_row"]) == 4
    assert motet.evaluate(policy, suite=lambda policy, settings: {"kinds": len(policy.kinds)}) == {"kinds": 2.0}
    suite = {"name": "rewards", "data": ROWS}
    run = train(tiny_checkpoint, tmp_path / "run", eval={**few["eval"], "suite": suite}, data=ROWS[:2])
    assert run.before == table


def test_names_of_the_package():
    assert set(motet.__all__) == {*motet._MODULES, "__version__"} and dir(motet) == sorted(motet.__all__)
    for name in motet.__all__:
        assert getattr(motet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        motet.no_such_name  # noqa: B018
