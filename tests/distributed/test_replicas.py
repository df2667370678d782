"""One run shared by several processes, here threads, is the run of one process: samples, metrics and weights."""

import pytest
import torch

from motet.config import parse_recipe
from motet.distributed.replicas import Replicas
from motet.report.run_dir import RunFolder
from motet.training.setup import setup_rl, setup_sft
from tests.distributed.threads import in_threads, run, run_in_threads
from tests.runs import mapping, metrics

CLOCKS = ("time/", "step_time", "seconds", "images_per_second", "memory/")
ROUNDING = 1e-3
"""The most by which the updates of two runs may differ, relative to their size. Adam divides by the gradient's own
size, so it magnifies the order of a sum in entries with almost no gradient: 8e-5 in 2 processes and 1.3e-4 in 4
(FSDP2, 5 steps, AMD EPYC)."""
RUN = {"steps": 3, "prompts_per_step": 3, "log_samples_every": 1}


def content(checkpoint, **changes):
    algorithm = {"beta": 0.05, **changes.pop("algorithm", {})}
    optimizer = {"max_grad_norm": 0.05, **changes.pop("optimizer", {})}
    return mapping(checkpoint, **{"run": RUN, "algorithm": algorithm, "optimizer": optimizer} | changes)


def assert_same_metrics(one, other):
    assert len(one) == len(other) > 0
    for numbers, theirs in zip(one, other, strict=True):
        assert numbers.keys() == theirs.keys()
        for name, value in numbers.items():
            if not name.startswith(CLOCKS):
                assert theirs[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def weights(session):
    return {name: parameter.detach().clone() for name, parameter in session.policy.trainable().items()}


def relative_difference(one, other, start):
    """Of the updates: |w_N - w_1| / |w_1 - w_0|."""
    assert one.keys() == other.keys() == start.keys()
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in start) ** 0.5
    return apart / sum(float((one[name] - start[name]).double().square().sum()) for name in start) ** 0.5


def compare(recipe, tmp_path, size, supervised=False):
    start = weights((setup_sft if supervised else setup_rl)(parse_recipe(recipe)))
    session, seen = run(recipe, RunFolder(tmp_path / "one", resume=False), supervised=supervised)
    shared = run_in_threads(size, recipe, tmp_path / "shared", supervised=supervised)
    for theirs, numbers in shared:
        assert_same_metrics(seen, numbers)
        assert relative_difference(weights(session), weights(theirs), start) < ROUNDING
        for name, weight in weights(theirs).items():
            assert torch.equal(weight, shared[0][0].policy.trainable()[name]), "replicas drift apart"
    assert_same_metrics(metrics(tmp_path / "one"), metrics(tmp_path / "shared"))
    return seen


def test_a_shared_run_is_the_run_of_one_process(tiny_checkpoint, tmp_path):
    """Of three prompts one of four processes has none. The KL and clipping are at work."""
    seen = compare(content(tiny_checkpoint), tmp_path, 4)
    assert seen[-1]["text/kl"] > 0 and min(one["grad_norm"] for one in seen) > 0.05
    one, shared = (tmp_path / name / "samples" for name in ("one", "shared"))
    assert {path.name for path in one.iterdir()} == {path.name for path in shared.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (shared / path.name).read_bytes(), path.name


CHANGES = {
    "minibatches, most uncertain tokens": {
        "algorithm": {"num_minibatches": 2, "num_iterations": 2, "loss": {"name": "dapo", "top_entropy_quantile": 0.4}},
        "run": RUN | {"steps": 1},
    },
    "dynamic sampling, no KL": {
        "algorithm": {
            "dynamic_sampling": 2, "beta": 0.0, "loss": {"name": "grpo", "mask_truncated_completions": True},
        },
        "run": RUN | {"steps": 1},
    },
    "pairs": {"algorithm": {"loss": "dpo", "beta": None}, "run": RUN | {"steps": 1}},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_looks_at_all_groups_sees_those_of_all_processes(tiny_checkpoint, tmp_path, name):
    changes = CHANGES[name]
    made = content(tiny_checkpoint, **changes)
    made["algorithm"] = {key: value for key, value in made["algorithm"].items() if value is not None}
    compare(made, tmp_path, 2)


def test_supervised_training(tiny_checkpoint, tmp_path):
    taught = {"rewards": None, "algorithm": None, "sampling": None, "scenario": "answer",
              "data": {"targets": {"answer": "solution"}}, "run": RUN}  # fmt: skip
    compare(mapping(tiny_checkpoint, **taught), tmp_path, 2, supervised=True)


def test_an_interruption_of_one_process_ends_all_after_the_same_step(tiny_checkpoint, tmp_path):
    recipe = content(tiny_checkpoint)
    interrupted = run_in_threads(2, recipe, tmp_path / "run", stop_after=1)
    assert [len(seen) for _, seen in interrupted] == [1, 1]
    resumed = run_in_threads(3, recipe, tmp_path / "run")  # on another number of processes
    assert [len(seen) for _, seen in resumed] == [2, 2, 2]
    run(recipe, RunFolder(tmp_path / "one", resume=False))
    assert_same_metrics(metrics(tmp_path / "one"), metrics(tmp_path / "run"))


def test_only_parameters_that_some_process_touched_get_a_gradient():
    def work(processes):
        first, second, third = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
        first.grad = torch.full((2,), 1.0 + processes.rank)
        if processes.rank == 1:
            second.grad = torch.full((2,), 5.0)
        Replicas(processes).reduce_gradients([first, second, third])
        return [None if p.grad is None else p.grad.tolist() for p in (first, second, third)], processes.reduced

    assert in_threads(2, work) == [([[3.0, 3.0], [5.0, 5.0], None], 1)] * 2
