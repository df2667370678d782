"""`motet bench scaling`: curves over one quantity at a time."""

import json
import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest

from motet.evaluation import bench_scaling as scaling
from motet.evaluation.bench_models import BenchSizes
from motet.evaluation.measuring import matmul_rate, memory_bandwidth
from motet.evaluation.scaling_plot import TITLES, scaling_figure, scaling_markdown
from tests.runs import motet_command

SIZES = BenchSizes(hidden=32, layers=1, heads=2, intermediate=64, vocab=512, codes=32)
BASE = scaling.ScalingPoint(prompts=1, generations=2, image_side=2, prompt_tokens=4)
AXES = {"generations": (2, 4), "image_side": (2,)}


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(scaling, "in_new_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(scaling, "matmul_rate", lambda device, dtype: 1e9)


def test_every_point_is_measured_once(in_this_process):
    seen = []
    rows = scaling.bench_scaling(2, AXES, SIZES, BASE, lambda done, total: seen.append((done, total)))
    assert [(row["axis"], row["value"]) for row in rows] == [
        ("generations", 2), ("generations", 4), ("image_tokens", 4),
    ]  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert rows[0]["seconds"] == rows[2]["seconds"]  # both are the base
    for row in rows:
        assert row["step_seconds_low"] <= row["seconds"]["step"] <= row["step_seconds_high"]
        assert 0 <= row["step_gb"] < row["peak_gb"] and row["matmul_share"] > 0


def test_a_peak_read_some_pages_too_low_is_no_less_than_before(in_this_process, monkeypatch):
    readings = iter([500_000_000, 499_959_040])
    monkeypatch.setattr(scaling, "peak_memory", lambda device: next(readings))
    (row,) = scaling.bench_scaling(1, {"generations": (2,)}, SIZES, BASE)
    assert row["peak_gb"] == 0.5 and row["step_gb"] == 0


def test_the_plot_shows_every_point():
    rows = [
        {
            "axis": axis,
            "value": value,
            "seconds": dict.fromkeys(("step", "generate", "learn"), seconds),
            "step_gb": seconds,
        }
        for axis, value, seconds in (("generations", 2, 1.0), ("prompts", 1, 0.5), ("prompts", 8, 9.0))
    ]
    panels = scaling_figure(rows).axes
    assert len(panels) == 4
    for panel in panels:
        assert panel.get_xlim()[0] == panel.get_ylim()[0] == 0 and panel.get_ylim()[1] > 9.0


def test_doubling_is_over_half_the_value():
    rows = [{"axis": "generations", "value": v, "seconds": {"step": s}} for v, s in ((2, 1.0), (4, 1.5), (16, 9.0))]
    assert scaling.doublings(rows, "generations") == {4: 1.5}


@pytest.mark.slow
def test_the_command_measures_in_new_processes_and_draws(capsys, tmp_path, monkeypatch):
    small = partial(scaling.bench_scaling, axes=AXES, sizes=SIZES, base=BASE)
    monkeypatch.setattr(scaling, "bench_scaling", small)
    files = {"--json": tmp_path / "s.json", "--plot": tmp_path / "s.svg", "--table": tmp_path / "s.md"}
    options = [part for pair in files.items() for part in pair]
    answer = motet_command(capsys, "bench", "scaling", "--repeats", 1, *options)
    assert answer.code == 0, answer.err
    assert "image tokens" in answer.out and "below 2" in answer.out
    found = json.loads(files["--json"].read_text())
    assert len(found["rows"]) == 3 and found["doubling_generations"].keys() == {"4"} and found["machine"]
    assert files["--table"].read_text() == scaling_markdown(found["rows"])
    text = "".join(ElementTree.parse(files["--plot"]).getroot().itertext())
    assert TITLES["image_tokens"] in text and "seconds per step" in text
    assert files["--plot"].stat().st_size < 60_000


def test_limits_of_the_machine_are_measured():
    import torch

    cpu = torch.device("cpu")
    assert 1e8 < matmul_rate(cpu, torch.float32, 128) < 1e14
    assert 1e7 < memory_bandwidth(cpu, 1 << 20) < 1e13
