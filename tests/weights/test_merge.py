"""Merged folders match the formulas and load as any checkpoint; invalid merges are rejected."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import motet
from motet.core.errors import CheckpointError, ConfigError, NumericsError, RunFolderError
from motet.weights.merge import merge_folders, open_weights
from motet.weights.merge_math import average, gaussian_merge, norm_weighted
from motet.weights.safetensors_io import INDEX, ShardWriter
from tests.runs import motet_command


def weights(seed: int, scale: float = 0.0) -> dict[str, Tensor]:
    """A small state dict; models of one base differ from it by `scale` times noise of their seed."""
    base = torch.Generator().manual_seed(99)
    noise = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (8, 6), "a.bias": (6,), "b.weight": (3, 4, 2), "scalar": (1,)}
    return {
        name: torch.randn(shape, generator=base) + scale * torch.randn(shape, generator=noise) ** 3
        for name, shape in shapes.items()
    }


def write(folder: Path, tensors: dict[str, Tensor], shard_bytes: int = 10**9, **config: Any) -> Path:
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, shard_bytes)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.close()
    (folder / "config.json").write_text(json.dumps({"model_type": "toy", **config}))
    return folder


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors, however many files."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture
def family(tmp_path: Path) -> list[Path]:
    """A base and three models trained from it."""
    return [write(tmp_path / f"model{n}", weights(n, 0.01 * n)) for n in range(4)]


# --- what a merged folder holds


def test_every_method_equals_its_formula(family: list[Path], tmp_path: Path) -> None:
    base, a, b, c = (read(folder) for folder in family)
    merge_folders(family[1:3], tmp_path / "gaussian", method="gaussian", base=family[0])
    merge_folders(family[1:], tmp_path / "average", method="average")
    merge_folders(family[1:], tmp_path / "norm", method="norm", base=family[0])
    for name in base:
        assert torch.equal(read(tmp_path / "gaussian")[name], gaussian_merge(base[name], a[name], b[name]))
        assert torch.equal(read(tmp_path / "average")[name], average([a[name], b[name], c[name]]))
        assert torch.equal(read(tmp_path / "norm")[name], norm_weighted(base[name], [a[name], b[name], c[name]]))
    assert not torch.equal(read(tmp_path / "gaussian")["a.weight"], base["a.weight"])


def test_shards_in_and_out(family: list[Path], tmp_path: Path) -> None:
    whole = merge_folders(family[1:3], tmp_path / "whole", method="gaussian", base=family[0])
    sharded = [write(tmp_path / f"sharded{n}", read(folder), 100 + 50 * n) for n, folder in enumerate(family[:3])]
    assert all((folder / INDEX).is_file() for folder in sharded)
    parts = merge_folders(sharded[1:], tmp_path / "parts", method="gaussian", base=sharded[0], shard_bytes=128)
    files = sorted(file.name for file in parts.folder.glob("*.safetensors"))
    assert files == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]  # 24 | 192 | 96 + 4 bytes
    index = json.loads((parts.folder / INDEX).read_text())
    assert index["metadata"] == {"total_parameters": 79, "total_size": 316}
    for file in files:
        with safe_open(parts.folder / file, framework="pt") as stored:
            assert stored.metadata() == {"format": "pt"}
            assert {index["weight_map"][name] for name in stored.keys()} == {file}  # noqa: SIM118
    assert read(parts.folder).keys() == read(whole.folder).keys()
    assert all(torch.equal(tensor, read(whole.folder)[name]) for name, tensor in read(parts.folder).items())
    assert (parts.parameters, parts.outliers) == (whole.parameters, whole.outliers) == (79, parts.outliers)
    assert not (whole.folder / INDEX).exists()


def test_at_most_one_shard_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more tensors are held at once than fill a shard."""
    held: list[int] = []
    monkeypatch.setattr(
        "motet.weights.safetensors_io.save_tensors", lambda file, tensors: (held.append(len(tensors)), file.touch())
    )
    writer = ShardWriter(tmp_path, limit=100)
    for number in range(10):
        writer.add(f"t{number}", torch.zeros(10))  # 40 bytes
    writer.close()
    assert held == [2] * 5


def test_views_are_copied(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    writer = ShardWriter(tmp_path)
    writer.add("turned", tensor.T)
    tensor.zero_()
    writer.close()
    assert read(tmp_path)["turned"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_changed_tensors_and_outliers_are_counted(family: list[Path], tmp_path: Path) -> None:
    base, a, b = (read(folder) for folder in family[:3])
    b["a.weight"] = base["a.weight"].clone()  # changed by one model: not compared
    a["b.weight"], b["b.weight"] = base["b.weight"].clone(), base["b.weight"].clone()  # changed by none
    models = [write(tmp_path / "x", a), write(tmp_path / "y", b)]
    done = merge_folders(models, tmp_path / "out", method="gaussian", base=family[0])
    assert (done.tensors, done.parameters, done.changed) == (4, 79, 3)
    assert done.num_compared == 2 * (6 + 1)
    merged = read(tmp_path / "out")
    assert torch.equal(merged["b.weight"], base["b.weight"])
    torch.testing.assert_close(merged["a.weight"], a["a.weight"])
    inliers = merged["a.bias"] - base["a.bias"], 0.5 * (a["a.bias"] + b["a.bias"]) - base["a.bias"]
    assert done.outliers >= 2 and done.outlier_share == done.outliers / 14
    assert (inliers[0] - inliers[1]).abs().max() < 0.1


def test_other_files_come_from_the_first_model(family: list[Path], tmp_path: Path) -> None:
    for number, folder in enumerate(family):
        (folder / "tokenizer.json").write_text(str(number))
        (folder / "chat_template.jinja").write_text(str(number))
        save_file({"x": torch.zeros(1)}, folder / "learner.safetensors")
        (folder / "trainer_state.json").write_text("{}")
        (folder / "pytorch_model.bin").write_bytes(b"old")
    merge_folders(family[2:0:-1], tmp_path / "out", method="gaussian", base=family[0])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "2"
    mode = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(mode) == 1


# --- types


def test_float32_steps_over_a_bfloat16_base_survive(tmp_path: Path) -> None:
    base = {name: tensor.bfloat16() for name, tensor in weights(0).items()}
    step = 1e-5
    models = []
    for number in (1, 2):
        tensors = dict(base) | {"a.weight": base["a.weight"].float() + step}
        models.append(write(tmp_path / f"m{number}", tensors, dtype="bfloat16", torch_dtype="bfloat16"))
    base_folder = write(tmp_path / "base", base, dtype="bfloat16")
    merge_folders(models, tmp_path / "out", method="norm", base=base_folder)
    merged = read(tmp_path / "out")
    assert merged["a.weight"].dtype == torch.float32 and merged["a.bias"].dtype == torch.bfloat16
    assert (merged["a.weight"] - base["a.weight"].float()).mean().item() == pytest.approx(step, rel=1e-2)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_type": "toy", "dtype": "float32"}


def test_integers_must_agree(family: list[Path], tmp_path: Path) -> None:
    ids = {"ids": torch.arange(5)}
    same = [write(tmp_path / f"i{n}", read(folder) | ids) for n, folder in enumerate(family[:3])]
    merge_folders(same[1:], tmp_path / "out", method="gaussian", base=same[0])
    assert read(tmp_path / "out")["ids"].tolist() == [0, 1, 2, 3, 4]
    odd = write(tmp_path / "odd", read(family[2]) | {"ids": torch.arange(5) + 1})
    with pytest.raises(CheckpointError, match=r"'ids' has dtype torch.int64 and differs"):
        merge_folders([same[1], odd], tmp_path / "out2", method="gaussian", base=same[0])
    assert not (tmp_path / "out2").exists() and not list(tmp_path.glob(".partial*"))


# --- a real model


def test_a_merged_janus_loads_and_acts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    policies = []
    for seed in (1, 2):
        policy = motet.load_policy(tiny_checkpoint)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=noise))
        policy.save(tmp_path / f"branch{seed}")
        policies.append(policy)
    branches = [tmp_path / "branch1", tmp_path / "branch2"]
    done = merge_folders(branches, tmp_path / "out", method="gaussian", base=tiny_checkpoint, shard_bytes=50_000)
    merged = motet.load_policy(tmp_path / "out")
    start = motet.load_policy(tiny_checkpoint).model.state_dict()
    one, two = (policy.model.state_dict() for policy in policies)
    for name, tensor in merged.model.state_dict().items():
        assert torch.equal(tensor, gaussian_merge(start[name], one[name], two[name])), name
    assert 0.04 < (done.outlier_share or 0) < 0.07  # 1 - erf(sqrt 2) of Gaussian steps
    assert done.parameters == sum(p.numel() for p in merged.model.parameters())
    acts = merged.generate_images("a red circle")
    assert float((merged.log_probs(acts)[0] - acts[0].log_probs).abs().max()) < 1e-4


def test_the_command(family: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"  # a run folder stands for its newest checkpoint
    (run / "checkpoints").mkdir(parents=True)
    newest = run / "checkpoints" / "step_000002"
    shutil.copytree(family[2], newest)
    (newest / "trainer_state.json").write_text("{}")
    out = tmp_path / "out"
    answer = motet_command(capsys, "merge", family[1], run, "--base", family[0], "--out", out)
    assert answer.code == 0 and answer.err == ""
    for text in ("Merged by gaussian", "4, 4 of them merged", "79", "outliers", "seconds", str(out)):
        assert text in answer.out.replace("\n", "") or text in answer.out
    assert torch.equal(read(out)["a.weight"], gaussian_merge(*(read(folder)["a.weight"] for folder in family[:3])))
    answer = motet_command(capsys, "merge", family[1], family[2], "--method", "average", "--out", tmp_path / "mean")
    assert answer.code == 0 and "outliers" not in answer.out
    answer = motet_command(capsys, "merge", family[1], family[2], "--method", "mean", "--out", tmp_path / "x")
    assert answer.code == 2 and "gaussian, average, norm" in answer.err


# --- rejected input


def assert_rejected(models: list[Path], out: Path, kind: type[Exception], message: str, **settings: Any) -> None:
    with pytest.raises(kind, match=message):
        merge_folders(models, out, **({"method": "average"} | settings))
    assert not out.exists() or list(out.iterdir()) == [out / "mine"]
    assert not list(out.parent.glob(".partial*"))


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (1, {"method": "average"}, "at least two models, not 1"),
        (3, {"method": "gaussian", "base": 0}, "merges two models, not 3"),
        (2, {"method": "gaussian"}, "needs the base"),
        (2, {"method": "norm"}, "needs the base"),
        (2, {"method": "average", "base": 0}, "takes no base"),
        (2, {"method": "slerp"}, "use one of gaussian, average, norm"),
    ],
)
def test_methods_that_do_not_fit(
    family: list[Path], tmp_path: Path, count: int, settings: dict[str, Any], message: str
) -> None:
    if "base" in settings:
        settings = settings | {"base": family[0]}
    assert_rejected(family[1 : 1 + count], tmp_path / "out", ConfigError, message, **settings)


def test_other_names_are_rejected(family: list[Path], tmp_path: Path) -> None:
    tensors = read(family[2])
    del tensors["a.bias"]
    odd = write(tmp_path / "odd", tensors | {f"new{n}": torch.zeros(1) for n in range(4)})
    assert_rejected([family[1], odd], tmp_path / "out", CheckpointError, r"by 5 tensors: a.bias, new0, new1 and 2 more")
    assert_rejected([family[1], family[2]], tmp_path / "out", CheckpointError, "by 5 tensors", method="norm", base=odd)


def test_other_shapes_are_rejected(family: list[Path], tmp_path: Path) -> None:
    odd = write(tmp_path / "odd", read(family[2]) | {"a.bias": torch.zeros(7)})
    assert_rejected([family[1], odd], tmp_path / "out", CheckpointError, r"1 tensors: a.bias \(6,\) and \(7,\)")


def test_values_that_are_not_finite_are_rejected(family: list[Path], tmp_path: Path) -> None:
    broken = read(family[2])
    broken["a.weight"][2, 3] = torch.nan
    odd = write(tmp_path / "odd", broken)
    assert_rejected([family[1], odd], tmp_path / "out", NumericsError, "'a.weight' is not finite")


def test_a_folder_that_is_not_empty_stays_unchanged(family: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("precious")
    assert_rejected(family[1:], out, RunFolderError, "exists and is not empty")
    (out / "mine").unlink()
    merge_folders(family[1:], out, method="average")  # an empty folder may exist
    assert (out / "model.safetensors").is_file()


def test_folders_without_weights_are_rejected(family: list[Path], tmp_path: Path) -> None:
    assert_rejected([family[1], tmp_path / "nowhere"], tmp_path / "out", CheckpointError, "is not a folder")
    (tmp_path / "empty").mkdir()
    assert_rejected([family[1], tmp_path / "empty"], tmp_path / "out", CheckpointError, "contains no weights")
    (family[2] / "model.safetensors").write_bytes(b"nonsense")
    assert_rejected([family[1], family[2]], tmp_path / "out", CheckpointError, "model.safetensors' cannot be read")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (lambda found: found | {"ghost": next(iter(found.values()))}, "disagree about 'ghost'"),
        (lambda found: {name: file for name, file in found.items() if name != "scalar"}, "disagree about 'scalar'"),
        (lambda found: found | {"a.bias": "../elsewhere.safetensors"}, "of that folder"),
        (lambda found: found | {"a.bias": "model-00009-of-00009.safetensors"}, "cannot be read"),
        (lambda found: None, "of that folder"),
    ],
)
def test_a_wrong_index_is_rejected(family: list[Path], tmp_path: Path, weight_map: Any, message: str) -> None:
    sharded = write(tmp_path / "sharded", read(family[1]), 128)
    index = json.loads((sharded / INDEX).read_text())
    (sharded / INDEX).write_text(json.dumps(index | {"weight_map": weight_map(index["weight_map"])}))
    with pytest.raises(CheckpointError, match=message):
        open_weights(sharded)
