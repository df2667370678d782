"""`scripts/gpu_check.sh`: what it does where there is no GPU, and its parts on a CPU."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from motet.core.errors import ConfigError
from motet.experiments import gpu_check as module
from motet.experiments import gpu_equality
from motet.experiments.gpu_check import gpu_check, require_device
from motet.experiments.gpu_equality import check_equality
from motet.experiments.gpu_parts import SIZES, Check, vendor_figures
from motet.testing.paper_gpu import paper_gpu
from tests.runs import save_tiny_janus

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")


@pytest.mark.parametrize(("build", "said"), [(None, "without CUDA"), ("12.8", "sees no CUDA device")])
def test_without_a_gpu_it_says_what_to_do(monkeypatch, build, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(ConfigError, match=said):
        require_device("cuda")
    require_device("cpu")


def test_a_part_that_fails_is_noted_and_the_next_one_runs(tmp_path, monkeypatch):
    def fails(check):
        raise RuntimeError("out of luck")

    parts = {"first": fails, "second": lambda check: {"passed": True}, "third": lambda check: {"passed": None}}
    monkeypatch.setattr(module, "PARTS", parts)
    found = gpu_check(tmp_path / "out", "cpu", "tiny", list(parts))
    assert found["passed"] is False and found == json.loads((tmp_path / "out" / module.RESULT).read_text())
    assert found["parts"]["first"]["error"] == "RuntimeError: out of luck" and found["parts"]["second"]["passed"]
    with pytest.raises(ConfigError, match="in use"):
        gpu_check(tmp_path / "out", "cpu", "tiny", list(parts))


def test_equality_sees_other_weights(tmp_path, monkeypatch):
    root = tmp_path / "root"
    save_tiny_janus(root / "checkpoints" / "shapes_janus")
    check = Check(CPU, SIZES["tiny"], tmp_path, root)
    same = check_equality(check)
    assert same["passed"] and same["largest_log_prob_difference"] == same["relative_difference_of_update"] == 0
    loaded = []

    def load(source, device):
        policy = policy_of(source, device)
        loaded.append(policy)
        if len(loaded) == 2:
            policy.model.lm_head.weight.data *= 1.01
        return policy

    policy_of = gpu_equality._load
    monkeypatch.setattr(gpu_equality, "_load", load)
    other = check_equality(check)
    assert not other["passed"] and other["largest_log_prob_difference"] > 1e-3


@pytest.mark.slow
def test_a_gpu_on_paper_equals_the_cpu(tmp_path):
    """No part of the comparison mixes devices."""
    source = str(save_tiny_janus(tmp_path / "janus"))
    cpu, other = (gpu_equality._load(source, "cpu") for _ in range(2))
    with paper_gpu() as gpu:
        gpu.move(other.model)
        found = gpu_equality.compare_policies(cpu, other)
    assert found["passed"], found
    assert gpu.num_launches > 1000


def test_cards_are_known_by_name(monkeypatch):
    names = {
        "NVIDIA H100 80GB HBM3": "H100 SXM", "NVIDIA H200": "H200 SXM", "NVIDIA A100-SXM4-80GB": "A100 80GB SXM",
        "NVIDIA A100-SXM4-40GB": "A100 40GB SXM", "NVIDIA GeForce RTX 4090": "RTX 4090",
        "NVIDIA GeForce GTX 1080": None,
    }  # fmt: skip
    for name, known in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        found = vendor_figures(torch.device("cuda"))
        assert (None if found is None else found.name) == known
    assert vendor_figures(CPU) is None


@pytest.mark.slow
def test_the_script_on_a_cpu(tmp_path):
    command = [str(ROOT / "scripts" / "gpu_check.sh"), "--output", str(tmp_path / "out")]
    parts = [option for part in ("install", "equality", "tests", "steps") for option in ("--part", part)]
    ended = subprocess.run([*command, "--device", "cpu", "--size", "tiny", *parts], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "out" / module.RESULT).read_text())
    assert found["passed"] and list(found["parts"]) == ["install", "equality", "tests", "steps"]
    steps = found["parts"]["steps"]
    assert steps["images"]["images_per_second"] > 0 and 0 < steps["shares"]["share_of_measured_bandwidth"] < 1
    assert steps["images_and_texts"]["actions"].keys() == {"image", "text"}
    if not torch.cuda.is_available():
        refused = subprocess.run([*command[:1], "--output", str(tmp_path / "gpu")], capture_output=True, text=True)
        assert refused.returncode == 2 and "CUDA" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_torchrun_equals_a_plain_run(tmp_path):
    found = module.PARTS["torchrun"](Check(CPU, SIZES["tiny"], tmp_path, ROOT))
    assert found["passed"] and found["largest_relative_difference"].keys() == {"replicas", "fsdp"}
