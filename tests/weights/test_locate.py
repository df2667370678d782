"""The newest checkpoint of a run, and digests of weights."""

import shutil

import torch
from safetensors.torch import load_file, save_file

from motet.weights.locate import resolve_checkpoint, weights_digest


def test_digest_depends_on_weights_not_paths(tiny_checkpoint, tmp_path):
    digest = weights_digest(tiny_checkpoint)
    assert digest is not None and digest.startswith("weights ")
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    assert weights_digest(copy) == digest == weights_digest(str(copy))
    (copy / "learner.safetensors").write_bytes(b"the optimizer's")
    assert weights_digest(copy) == digest
    file = copy / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + torch.full_like(tensor, 1e-3) for name, tensor in tensors.items()}, file)
    changed = weights_digest(copy)
    assert changed not in (None, digest)
    config = copy / "config.json"
    config.write_text(config.read_text() + " ")
    assert weights_digest(copy) not in (None, digest, changed)


def test_a_digest_covers_the_first_and_the_last_byte(tmp_path):
    seen = set()
    for position in (0, 500_000, 999_999):
        content = bytearray(1_000_000)
        content[position] = 1
        (tmp_path / "model.safetensors").write_bytes(bytes(content))
        seen.add(weights_digest(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"small")
    assert len(seen) >= 2 and weights_digest(tmp_path) not in seen


def test_a_folder_without_weights_has_no_digest(tmp_path):
    assert weights_digest("someone/model") is None and weights_digest(tmp_path) is None


def test_a_run_folder_resolves_to_its_last_checkpoint_or_its_merge(tmp_path):
    assert resolve_checkpoint("someone/model") == "someone/model" and resolve_checkpoint(tmp_path) == str(tmp_path)
    (tmp_path / "merged").mkdir()
    assert resolve_checkpoint(tmp_path) == str(tmp_path)  # incomplete
    (tmp_path / "merged" / "config.json").write_text("{}")
    assert resolve_checkpoint(tmp_path) == str(tmp_path / "merged")
    for step in (9, 10):
        (tmp_path / "checkpoints" / f"step_{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step_{step}" / "trainer_state.json").write_text("{}")
    assert resolve_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "step_10")
