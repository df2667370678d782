"""1.65 billion parameters on 8 and 512 ranks that do not exist: what each holds is what the arithmetic says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motet.config import PolicyConfig
from motet.estimation.building import model_size
from motet.estimation.memory import Settings, memory
from motet.estimation.workload import ActLoad
from tests.estimation.fake_ranks import ACTIONS, LENGTH, ROWS

ROOT = Path(__file__).parent.parent.parent


def held_by_rank_0(ranks: int) -> dict:
    command = [sys.executable, "tests/estimation/fake_ranks.py", str(ranks)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this torch has no fake process group or no FSDPMemTracker")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [8, 512])
def test_a_rank_holds_its_share(ranks) -> None:
    found = held_by_rank_0(ranks)
    size = model_size(PolicyConfig(path="Janus-Pro-1B"), "bfloat16")
    assert size.trainable == 1_652_656_128
    act = ActLoad("", "answer", "text", ROWS * ranks, 1, LENGTH - ACTIONS, 0, ACTIONS, ACTIONS, float(ACTIONS))
    settings = Settings(ranks, "fsdp", "bfloat16", "bfloat16", ROWS * LENGTH, None, True, False)
    learn = memory(size, [act], settings).phases["learn"]
    for part in ("trainable weights", "gradients", "AdamW moments"):
        assert found[part] == learn[part] == {"AdamW moments": 8}.get(part, 4) * size.trainable / ranks
    assert found["frozen parameters"] == size.parameters - size.trainable
    peak = found["peak"]
    assert peak["UNSHARDED_PARAM"] == size.root_bytes
    assert peak["ALL_GATHER"] == size.unit_bytes
    # The tracker's model has neither moments nor frozen parts, nor gradients of an earlier micro-batch.
    elsewhere = ("AdamW moments", "frozen weights", "gradients")
    assert sum(learn.values()) - sum(learn[part] for part in elsewhere) == pytest.approx(peak["Total"], rel=0.05)
