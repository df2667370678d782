"""Trackers with their real libraries: what was written is read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from motet.report.trackers import Results, RunInfo, Samples, ShownImage, ShownText

RECIPE = {"policy": {"path": "model"}, "run": {"steps": 3, "report_to": ["x"]}, "long": "y" * 9000}
HOSTILE = "# <script>alert(1)</script> [red]|\x1b[31m"
SAMPLES = Samples(
    "samples",
    [ShownImage(Image.new("RGB", (8, 6), "red"), f"0.50  {HOSTILE}"), ShownImage(Image.new("L", (8, 6)), "b")],
    [ShownText("answer", f"how many? {HOSTILE}", "two", 0.5), ShownText("answer", "which?", "", None)],
)
RESULTS = Results(rows=[("shapes.accuracy", 0.25, 0.5), ("shapes.other", None, 1.0)])
METRICS = {"reward": 0.5, "rewards/file.py:mine[0]/mean": 1.0, "bad": float("nan")}


def drive(tracker, folder, resumed=None, step=0):
    """Two steps; returns the id."""
    run_id = tracker.start(RunInfo("runs/demo", folder, RECIPE, f"a: {HOSTILE}\n", step), resumed)
    for n in (step + 1, step + 2):
        tracker.log(n, METRICS)
        tracker.log_samples(n, SAMPLES)
    tracker.finish(RESULTS)
    return run_id


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from motet.report.trackers.tensorboard import TensorBoard

    drive(TensorBoard(), tmp_path)
    drive(TensorBoard(), tmp_path, step=1)  # resumed from a checkpoint after step 1: step 2 is repeated
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("reward")] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert [point.step for point in events.Images("samples/0")] == [1, 2, 3]
    assert (events.Images("samples/1")[0].width, events.Images("samples/1")[0].height) == (8, 6)
    texts = {tag: events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode() for tag in
             ("recipe", "samples", "results")}  # fmt: skip
    assert texts["recipe"] == f"    a: {HOSTILE}\n"
    assert f"    prompt: how many? {HOSTILE}\n    text: two" in texts["samples"] and "image 0: 0.50" in texts["samples"]
    assert "shapes.accuracy | 0.25 | 0.5" in texts["results"] and "shapes.other |  | 1" in texts["results"]


@pytest.mark.slow
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from motet.report.trackers.mlflow import Mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "demo"
    folder.mkdir()
    run_id = drive(Mlflow(experiment="colours"), folder)
    assert drive(Mlflow(experiment="colours"), folder, resumed=run_id, step=2) == run_id
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    assert run.info.run_id == run_id and run.info.run_name == "runs/demo" and run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "reward")] == [1, 2, 3, 4]
    assert run.data.metrics["rewards/file.py:mine_0_/mean"] == 1.0
    assert run.data.params["run.report_to.0"] == "x" and len(run.data.params["long"]) == 500
    artifacts = tmp_path / "mlartifacts" / "colours" / run_id / "artifacts"
    assert (artifacts / "recipe.yaml").read_text() == f"a: {HOSTILE}\n"
    texts = json.loads((artifacts / "samples" / "step_000002.json").read_text())
    assert texts["texts"][0]["text"] == "two" and texts["captions"][0] == f"0.50  {HOSTILE}"
    assert json.loads((artifacts / "results.json").read_text())["results"][0]["after"] == 0.5
    assert len(list(artifacts.rglob("*.png"))) == 8


@pytest.mark.slow
def test_trackio(tmp_path):
    pytest.importorskip("trackio")
    read = (
        "from trackio.sqlite_storage import SQLiteStorage; import json\n"
        "names = SQLiteStorage.get_runs('colours')\n"
        "print('READ', json.dumps([SQLiteStorage.get_logs('colours', name) for name in names]))"
    )
    code = f"from tests.report.test_tracker_libraries import drive_trackio\ndrive_trackio()\n{read}"
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=env)
    assert done.returncode == 0, done.stderr
    (logs,) = json.loads(done.stdout.split("READ", 1)[1])
    assert [line["step"] for line in logs if "reward" in line] == [1, 2, 3, 4]
    shown = next(line for line in logs if "samples/0" in line)
    assert (tmp_path / "media" / shown["samples/0"]["file_path"]).is_file()
    assert shown["samples/texts"]["_value"][0]["text"] == "two"
    assert next(line for line in logs if "results" in line)["results"]["_value"][0]["before"] == 0.25


def drive_trackio():
    """In a process of its own: trackio chooses its folder when it is imported."""
    from motet.report.trackers.trackio import Trackio

    name = drive(Trackio(project="colours"), Path())
    assert drive(Trackio(project="colours"), Path(), resumed=name, step=2) == name


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from motet.report.trackers.wandb import Wandb

    monkeypatch.setenv("HOME", str(tmp_path))
    run_id = drive(Wandb(project="colours", mode="offline"), tmp_path)
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{run_id}")
    written = (folder / f"run-{run_id}.wandb").read_bytes()
    assert all(word in written for word in (b"reward", b"colours", b"shapes.accuracy", b"report_to"))
    assert len(list(folder.rglob("media/images/**/*.png"))) == 4
    tables = [json.loads(path.read_text()) for path in folder.rglob("*.table.json")]
    assert ["answer", 0.5, f"how many? {HOSTILE}", "two"] in tables[0]["data"] + tables[1]["data"] + tables[2]["data"]
    assert drive(Wandb(project="colours", mode="offline"), tmp_path, resumed=run_id, step=2) == run_id
