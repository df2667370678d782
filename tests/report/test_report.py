"""What a run writes and shows: metrics, images, progress."""

import io
import json
import re

import pytest
import torch
from PIL import Image
from rich.console import Console

from motet.core.task import Task
from motet.core.trajectory import Failure, Group, Sampling, Scores, TextTokens, Trajectory
from motet.report import versions
from motet.report.image_grid import count_correct, make_image_grid, save_image
from motet.report.metrics import PhaseTimer, act_metrics, reward_metrics
from motet.report.progress import ProgressBar, describe
from motet.report.run_count import RunCount
from motet.report.run_dir import RunFolder, metrics_line
from motet.report.samples import failure_lines, save_samples, show_group
from motet.rewards.base import BoundReward
from motet.scenarios import generate_and_answer, text_to_image
from motet.testing import FakePolicy
from motet.training.rollout import rollout


def folder_at(path, resume=False):
    folder = RunFolder(path, resume=resume)
    folder.create("description: none\n")
    return folder


def test_small_values_are_not_rounded_to_zero(tmp_path):
    folder = folder_at(tmp_path / "run")
    folder.append_line(
        "metrics.jsonl",
        metrics_line(3, {"learning_rate": 1e-7, "gap": 2.384185791015625e-07, "reward": 1 / 3, "n": 1234567.0}),
    )
    folder.append_line("metrics.jsonl", metrics_line(4, {"bad": float("nan"), "worse": float("inf")}))
    text = (folder.path / "metrics.jsonl").read_text()
    assert folder.read_metrics()[0] == {
        "step": 3, "learning_rate": 1e-7, "gap": 2.38419e-07, "reward": 0.333333, "n": 1234570.0,
    }  # fmt: skip
    assert folder.read_metrics()[1] == {"step": 4, "bad": None, "worse": None}
    assert "NaN" not in text and "Infinity" not in text  # they are not valid JSON


def test_truncating_drops_the_lines_of_repeated_steps(tmp_path):
    folder = folder_at(tmp_path / "run")
    for step in range(4):
        folder.append_line("metrics.jsonl", metrics_line(step, {"reward": float(step)}))
        folder.append_line("failures.jsonl", {"step": step})
    folder.truncate_metrics(2)
    assert [line["step"] for line in folder.read_metrics()] == [0, 1]
    assert [json.loads(line)["step"] for line in (folder.path / "failures.jsonl").read_text().splitlines()] == [0, 1]


def test_remove_if_new_removes_only_what_the_run_made(tmp_path):
    folder = folder_at(tmp_path / "a" / "b" / "run")
    folder.append_line("metrics.jsonl", metrics_line(0, {}))
    (folder.checkpoints / "step_1").mkdir(parents=True)
    assert folder.has_started
    folder.remove_if_new()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("")
    folder_at(tmp_path / "a" / "b" / "run").remove_if_new()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]
    folder_at(tmp_path / "c")
    folder_at(tmp_path / "c", resume=True).remove_if_new()  # a resumed run keeps its folder
    assert (tmp_path / "c" / "recipe.yaml").is_file()


def reward(name, weight, *acts):
    return BoundReward(name, weight, acts, lambda completions: [], {}, None)


@pytest.fixture
def group():
    task = Task(7, {"prompt": "a cat", "question": "which?"})
    samplings = {"text": Sampling(), "image": Sampling()}
    return rollout(FakePolicy(), generate_and_answer, [task], 3, samplings=samplings, seed=0, step=0)[0]


def test_rewards_are_averaged_over_valid_generations():
    scores = [
        Scores({"a": (1.0, 0.0, 5.0), "b": (None, None, None)}, {2: Failure("reward", "x")}),
        Scores({"a": (1.0, None, 1.0), "b": (3.0, 3.0, 4.0)}, {1: Failure("reward", "x")}),
    ]
    metrics = reward_metrics(scores, {"a": 1.0, "b": 0.5})
    assert metrics["rewards/a/mean"] == 0.75 and metrics["rewards/b/mean"] == 3.5
    assert metrics["reward"] == 0.75 + 0.5 * 3.5 and metrics["rewards/b/std"] == 0.5


def test_there_is_no_total_reward_if_a_reward_has_no_value():
    scores = [Scores({"a": (1.0, 0.0, 5.0), "b": (None, None, None)}, {2: Failure("reward", "x")})]
    assert "reward" not in reward_metrics(scores, {"a": 1.0, "b": 0.5})
    assert reward_metrics(scores, {"a": 1.0, "b": 0.0})["reward"] == 0.5


def test_act_metrics(group):
    metrics = act_metrics([group], 0.5)
    assert metrics["images_per_second"] == 6.0 and metrics["failures"] == 0.0 and metrics["frac_truncated"] == 0.0
    lengths = [len(t.acts[1].ids) for t in group.trajectories]
    assert metrics["completion_length/mean"] == pytest.approx(sum(lengths) / 3)
    assert metrics["completion_length/max"] == max(lengths) and "behaviour_gap" not in metrics
    image, answer = group.trajectories[0].acts
    assert isinstance(answer, TextTokens)
    biased = type(image)(**{**vars(image), "behaviour_log_probs": image.log_probs + 0.25})
    failed = Trajectory(group.task, (biased,), Failure("policy", "too long"))
    metrics = act_metrics([Group(group.task, (failed,))], 1.0)
    assert metrics["behaviour_gap"] == pytest.approx(0.25) and metrics["failures"] == 1.0
    steps = FakePolicy(kinds=("denoising",))
    samplings = {"denoising": Sampling(num_steps=2)}
    denoised = rollout(steps, text_to_image, [group.task], 2, samplings=samplings, seed=0, step=0)
    assert act_metrics(denoised, 1.0)["images_per_second"] == 2.0


def test_samples_show_prompt_and_reward(group, tmp_path):
    folder = folder_at(tmp_path / "run")
    scores = [Scores({"a": (1.0, 0.5, 0.0), "b": (0.25, None, 0.0)}, {1: Failure("reward", "no value")})]
    rewards = [reward("a", 1.0, "answer"), reward("b", 2.0, "image")]
    save_samples(folder, 20, [show_group(group, scores[0], rewards)])
    lines = [json.loads(line) for line in (folder.path / "samples" / "step_000020.jsonl").read_text().splitlines()]
    assert [(line["row"], line["generation"], line["reward"]) for line in lines] == [(7, 0, 1.0), (7, 1, 0.5)]
    assert lines[0]["prompt"] == "which?" and lines[0]["text"] == group.trajectories[0].acts[1].text
    assert Image.open(folder.path / "samples" / "step_000020.png").width > 256
    assert list(failure_lines(19, [group], scores)) == [
        {"step": 19, "row": 7, "generation": 1, "where": "reward", "message": "no value"}
    ]


def test_image_grids(tmp_path):
    images = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    grid = make_image_grid(images, ["one", "a caption of very many words indeed", ""], [True, False, None], 2, "title")
    assert grid.width == 2 * (128 + 14) + 14
    colours = {colour for _, colour in grid.getcolors(100_000)}
    assert {
        (255, 0, 0),
        (0, 128, 0),
        (0, 0, 255),
        (52, 162, 84),
        (219, 58, 52),
    } <= colours  # the images and both frames
    wide = make_image_grid(images, ["wwwwwwww wwwwwwww wwwwwwww", "", ""], [None] * 3, 3)
    assert wide.crop((14 + 128, 0, 14 + 128 + 14, wide.height)).getcolors() == [(14 * wide.height, (255, 255, 255))]
    assert count_correct([True, False, None]) == "1 of 2 correct (green frames)" and count_correct([None]) == ""
    save_image(grid, tmp_path / "deep" / "grid.png")
    assert Image.open(tmp_path / "deep" / "grid.png").size == grid.size


def test_describe_shows_the_main_metrics():
    metrics = {"reward": 0.5, "rewards/a/mean": 0.25, "text/entropy": 1.5, "failures": 0.0, "eval/draw": 0.75, "x": 1.0}
    assert describe(metrics) == ["reward 0.500", "a 0.250", "eval/draw 0.750", "ent text 1.50"]
    metrics["eval/draw/interval"] = 0.0512
    assert describe(metrics) == ["reward 0.500", "a 0.250", "eval/draw 0.750 ± 0.051", "ent text 1.50"]
    assert describe({"failures": 2.0}) == ["failed 2"] and describe({"skipped": 1.0}) == ["skipped 1"]


STEP = {
    "joint/reward": 1.878, "joint/rewards/shapes/mean": 0.925, "joint/rewards/shapes/std": 0.1,
    "joint/rewards/exact_answer/mean": 0.953, "joint/dropped/reward": 0.0, "joint/zero_variance/answer": 0.0,
    "answer/reward": 0.95, "answer/rewards/exact_answer/mean": 0.95, "dropped/reward": 0.0, "zero_variance/reward": 0.0,
    "frac_reward_zero_std": 0.25, "image/kl": 0.01, "text/entropy": 0.5, "step_time": 0.8,
}  # fmt: skip


def test_describe_begins_with_the_rewards_of_every_track():
    expected = ["joint 1.878", "answer 0.950", "shapes 0.925", "joint/exact_answer 0.953", "zero-var 25%"]
    assert describe(STEP)[:5] == expected
    single = {"reward": 0.5, "rewards/lab/rewards/x.py:f/mean": 0.25, "dropped/reward": 0.0}
    assert describe(single) == ["reward 0.500", "lab/rewards/x.py:f 0.250"]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("motet.report.progress.time.monotonic", lambda: self.now)


def lines_of(text):
    return text.getvalue().rstrip().splitlines()  # rich 13 ends with an empty line


def test_progress_off_a_terminal_is_a_line_per_minute(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    with ProgressBar(Console(file=text, width=60)) as bar:
        bar.steps = lambda: 200
        bar.phase("train")
        for step in range(1, 201):
            clock.now += 0.5 if step > 1 else 2.0
            bar.on_step_end(step, {"reward": 0.5, "rewards/[x]/mean": 0.1})
        clock.now += 4.0
        bar.items("measure", 2, 2)
    assert lines_of(text) == [
        "train 1/200  0.5/s  6:38 left  reward 0.500  [x] 0.100",
        "train 121/200  1.95/s  0:40 left  reward 0.500  [x] 0.100",
        "train 200/200  1.97/s  reward 0.500  [x] 0.100",
        "measure 2/2",
    ]


def test_a_phase_without_a_count_is_mentioned_after_ten_seconds_and_every_minute(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    bar = ProgressBar(Console(file=text, width=60))
    bar._ended.wait = lambda seconds: next(ticks)  # the ticker's seconds
    bar.phase("load")

    def seconds():
        for _ in range(200):
            clock.now += 1.0
            yield False
        bar.items("evaluate", 0, 10)
        for _ in range(100):
            clock.now += 1.0
            yield False
        bar.items("evaluate", 5, 10)
        for _ in range(30):
            clock.now += 1.0
            yield False
        yield True

    ticks = seconds()
    bar._tick()
    assert lines_of(text) == [
        "load: 0:10 so far", "load: 1:10 so far", "load: 2:10 so far", "load: 3:10 so far",
        "evaluate 0/10", "evaluate 0/10", "evaluate 5/10  0.0417/s  2:00 left",
    ]  # fmt: skip


def test_an_evaluation_with_a_time_limit_counts_what_the_time_suffices_for(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    with ProgressBar(Console(file=text, width=60)) as bar:
        bar.phase("evaluate")
        for done, last in ((32, 5120), (640, 5120), (672, 672)):
            clock.now += 70.0 if done < 672 else 10.0
            bar.items("evaluate", done, last, 90.0)
    assert lines_of(text) == [
        "evaluate 32/41  0.457/s  0:20 left", "evaluate 640/641  4.57/s  0:00 left", "evaluate 672/672  4.48/s",
    ]  # fmt: skip


def test_fewer_steps_are_explained_once(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    with ProgressBar(Console(file=text, width=60)) as bar:
        bar.steps = lambda: 210 if clock.now < 200 else 62
        bar.explain_fewer = lambda steps: "" if steps == 210 else f"time for {steps} [steps]"
        bar.phase("train")
        for step in (1, 2, 3):
            clock.now += 70.0
            bar.on_step_end(step, {})
    assert [line.split("  ")[0] for line in lines_of(text)] == [
        "train 1/210", "time for 62 [steps]", "train 2/62", "train 3/62",
    ]  # fmt: skip


def test_after_the_time_limit_the_step_that_goes_on_is_the_last(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    bar, start = ProgressBar(Console(file=text, width=60)), clock.now
    bar._ended.wait = lambda seconds: next(ticks)  # the ticker's seconds
    bar.steps, bar.seconds_left = lambda: 9 if clock.now == start + 40.0 else 3, lambda: start + 120.0 - clock.now
    bar.phase("train")

    def seconds():
        for step in (1, 2):
            clock.now += 40.0
            bar.on_step_end(step, {})
        for _ in range(100):
            clock.now += 1.0
            yield False
        bar.on_step_end(3, {})
        bar.phase("evaluate")
        for _ in range(10):
            clock.now += 1.0
            yield False
        yield True

    ticks = seconds()
    bar._tick()
    assert lines_of(text) == [
        "train 1/9  0.025/s  1:20 left",  # not the 5:20 that eight steps would take
        "train 2/3  0.02/s  0:20 left",
        "train 2/3  0.0125/s  0:40 over run.minutes, this step is the last",
        "train 3/3  0.0167/s",
        "evaluate: 0:10 so far",
    ]


def test_labels_are_explained_once(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    with ProgressBar(Console(file=text, width=60)) as bar:
        bar.steps = lambda: 3
        for step in (1, 2):
            clock.now += 70.0
            bar.on_step_end(step, {"frac_reward_zero_std": 0.5} if step == 2 else {"text/nll": 0.5})
        clock.now += 70.0
        bar.on_step_end(3, {"frac_reward_zero_std": 0.5})
    assert [line.split("  ")[0] for line in lines_of(text)] == [
        "train 1/3", "zero-var: groups of equal rewards, without a gradient", "train 2/3", "train 3/3",
    ]  # fmt: skip


def test_a_resumed_run_counts_its_own_steps(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    with ProgressBar(Console(file=text, width=60)) as bar:
        bar.steps = lambda: 110
        bar.phase("train")
        clock.now += 2.0
        bar.on_step_end(101, {})
    assert lines_of(text) == ["train 101/110  0.5/s  0:18 left"]


def test_a_count_of_runs_says_what_is_left(monkeypatch):
    clock, text = Clock(monkeypatch), io.StringIO()
    count = RunCount(Console(file=text, width=60), 4)
    for seconds in (0.1, 100.0, 50.0, 1.0):
        with count.run("seed 0: [red]a"):
            clock.now += seconds
    shown = [line.strip("─ ") for line in lines_of(text)]
    assert shown == [
        "1/4  seed 0: [red]a", "2/4  seed 0: [red]a", "3/4  seed 0: [red]a  about 3:20 left",
        "4/4  seed 0: [red]a  about 1:15 left",
    ]  # fmt: skip


def last_lines(width, *steps):
    """What a terminal `width` columns wide shows after each of the steps, without colours."""
    text = io.StringIO()
    with ProgressBar(Console(file=text, force_terminal=True, width=width)) as bar:
        bar.steps = lambda: 420
        shown = []
        for step in steps:
            step(bar)
            bar._bar.refresh()
            plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())
            shown.append(plain.splitlines()[-1].rpartition("\r")[2])
    return shown


def test_a_terminal_names_the_last_step_after_the_time_limit():
    def over(bar):
        bar.seconds_left = lambda: -1.0
        bar.on_step_end(120, {})

    def near(bar):
        bar.seconds_left = lambda: 83.0
        bar.on_step_end(120, {})

    assert " 120/420  last step" in last_lines(80, over)[0]
    assert " 120/420  1:23" in last_lines(80, near)[0]


def test_progress_on_a_terminal_keeps_bar_count_and_time():
    """In 80 columns metrics must not push them out, and no metric is cut."""
    before, train = last_lines(80, lambda b: b.items("measure before", 2560, 5120), lambda b: b.on_step_end(120, STEP))
    assert re.fullmatch(r"measure before [━╸╺]+ 2560/5120 +(-:--:--|\d:\d\d:\d\d) *", before)
    line = re.fullmatch(r"train [━╸╺ ]+ 120/420 +(-:--:--|\d:\d\d:\d\d) (.*)", train)
    assert line and line[2].rstrip() == "joint 1.878  answer 0.950  shapes 0.925" and len(train) <= 80
    assert last_lines(200, lambda b: b.on_step_end(1, {"rewards/[x]/mean": 0.1}))[0].rstrip().endswith(" [x] 0.100")
    narrow = last_lines(44, lambda b: b.on_step_end(120, STEP))[0]
    assert " 120/420 " in narrow and narrow.rstrip().endswith(":--")


def test_the_phase_timer_adds_up():
    timer = PhaseTimer()
    with timer.phase("a"):
        torch.zeros(1)
    with pytest.raises(KeyError), timer.phase("a"):
        raise KeyError
    report = timer.report()

    assert report.keys() == {"time/a", "step_time"} and 0 < report["time/a"] <= report["step_time"]


def test_a_phase_waits_for_the_work_that_it_left_to_a_gpu(monkeypatch):
    clock, queued = [0.0], [0.0]

    def wait():
        clock[0], queued[0] = clock[0] + queued[0], 0.0

    monkeypatch.setattr("motet.report.metrics.wait_for_device", wait)
    monkeypatch.setattr("motet.report.metrics.time.monotonic", lambda: clock[0])
    timer = PhaseTimer()
    with timer.phase("rollout"):
        clock[0] += 1.0
        queued[0] = 5.0
    with timer.phase("learn"):
        clock[0] += 2.0
    assert timer.report() == {"time/rollout": 6.0, "time/learn": 2.0, "step_time": 8.0}


def test_without_a_gpu_there_is_nothing_to_wait_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("no GPU is in use"))
    with PhaseTimer().phase("learn"):
        pass


def test_versions_are_recorded_once_and_where_a_resume_changes_them(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.create("")
    for step, motet in ((0, "1.0"), (5, "1.0"), (7, "2.0")):
        monkeypatch.setattr(versions, "version", lambda name, motet=motet: motet if name == "motet" else "9")
        versions.record_versions(folder, step)
    lines = folder.read_lines(versions.VERSIONS)
    assert [(line["step"], line["motet"], line["torch"]) for line in lines] == [(0, "1.0", "9"), (7, "2.0", "9")]
    assert versions.describe_versions(lines, "motet") == "1.0, 2.0 from step 7"
    assert versions.describe_versions(lines, "torch") == "9" and versions.describe_versions([], "torch") == ""
