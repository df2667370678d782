"""What is only seen on a CUDA card: the compute type that `auto` chooses, and that what was sampled is replayed."""

import pytest
import torch

from motet import load_policy
from motet.config import PolicyConfig
from tests.runs import mapping, metrics, run_loop

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def test_auto_is_bfloat16_for_learning_and_sampling(tiny_checkpoint):
    policy = load_policy(tiny_checkpoint)
    assert policy.device.type == "cuda"
    assert policy.dtype == policy.rollout_dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_sampled_log_probs_are_replayed(tiny_checkpoint, dtype, bound):
    settings = PolicyConfig(path=str(tiny_checkpoint), device="cuda", dtype=dtype)
    policy = load_policy(tiny_checkpoint, settings)
    for acts in (
        policy.generate_images("two red circles", n=4),
        policy.generate_text("how many circles?", n=4, max_tokens=8),
    ):
        replayed = [replay.log_probs.cpu() for replay in policy.replay(acts)]
        gaps = torch.cat([(one.detach() - act.log_probs.cpu()).abs() for one, act in zip(replayed, acts, strict=True)])
        assert float(gaps.mean()) < bound


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_a_run_trains(tiny_checkpoint, tmp_path, dtype):
    recipe = mapping(tiny_checkpoint, policy={"device": "cuda", "dtype": dtype}, run={"steps": 3})
    run_loop(recipe, tmp_path)
    lines = metrics(tmp_path)
    assert len(lines) == 3 and all(line["grad_norm"] > 0 for line in lines)
    assert {line["old_log_probs_recomputed"] for line in lines} == {float(dtype == "auto")}
