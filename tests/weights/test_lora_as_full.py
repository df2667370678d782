"""LoRA adapters are merged by their products, not by their factors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import motet
from motet.config import LoraConfig, PolicyConfig
from motet.core.errors import CheckpointError
from motet.weights.merge import merge_folders
from motet.weights.merge_math import gaussian_merge, norm_weighted

peft = pytest.importorskip("peft")


def train_adapter(base: Path, folder: Path, seed: int, rank: int) -> tuple[Path, dict[str, Tensor]]:
    """An adapter with random factors, saved as in a run, and the full weights that peft computes from it."""
    settings = PolicyConfig(path=str(base), device="cpu", lora=LoraConfig(rank=rank, alpha=3.0))
    policy = motet.load_policy(base, settings)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    folder.mkdir()
    policy.save(folder)
    return folder, policy.wrapped.merge_and_unload().state_dict()


@pytest.fixture(scope="module")
def adapters(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Tensor]]]:
    root = tmp_path_factory.mktemp("adapters")
    return [train_adapter(tiny_checkpoint, root / f"a{seed}", seed, rank=seed + 1) for seed in (1, 2)]


@pytest.fixture
def broken(adapters: Any, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the first adapter with changed settings or tensors."""

    def make_broken(tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda t: t, **settings: Any) -> Path:
        source, target = adapters[0][0], tmp_path / "broken"
        target.mkdir()
        config = json.loads((source / "adapter_config.json").read_text())
        (target / "adapter_config.json").write_text(json.dumps(config | settings))
        save_file(tensors(load_file(source / "adapter_model.safetensors")), target / "adapter_model.safetensors")
        return target

    return make_broken


def test_products_merge(adapters: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folders, full = [folder for folder, _ in adapters], [weights for _, weights in adapters]
    merge_folders(folders, tmp_path / "gaussian", method="gaussian", base=tiny_checkpoint)
    merge_folders(folders, tmp_path / "norm", method="norm", base=tiny_checkpoint)
    base = motet.load_policy(tiny_checkpoint).model.state_dict()
    gaussian, norm = (motet.load_policy(tmp_path / name).model.state_dict() for name in ("gaussian", "norm"))
    num_changed = 0
    for name, weight in base.items():
        one, two = (weights[name] for weights in full)
        torch.testing.assert_close(norm[name], norm_weighted(weight, [one, two]), atol=1e-6, rtol=0)
        expected = gaussian_merge(weight, one, two)
        differing = ((gaussian[name] - expected).abs() > 1e-6).double().mean()
        assert differing < 2e-3, name  # an element on the edge of the band may fall to the other side by rounding
        num_changed += not torch.equal(gaussian[name], weight)
    assert num_changed == 2 * 7  # seven adapted layers in each of two blocks, and nothing else


def test_the_average_of_one_adapter_is_its_base_with_it(adapters: Any, tmp_path: Path) -> None:
    folder, weights = adapters[0]
    merge_folders([folder], tmp_path / "out", method="average")
    found = motet.load_policy(tmp_path / "out").model.state_dict()
    assert set(found) == set(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=0)


def test_averaging_factors_would_give_another_result(adapters: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Averaging A and B separately is far from the mean of the products, which is written."""
    # of the same rank, or the factors could not be averaged
    other, _ = train_adapter(tiny_checkpoint, tmp_path / "other", 5, rank=2)
    merge_folders([adapters[0][0], other], tmp_path / "out", method="average")
    name = "model.language_model.layers.0.self_attn.q_proj"
    base = motet.load_policy(tiny_checkpoint).model.state_dict()[f"{name}.weight"]
    stored = [load_file(folder / "adapter_model.safetensors") for folder in (adapters[0][0], other)]
    a, b = ([one[f"base_model.model.{name}.lora_{x}.weight"] for one in stored] for x in "AB")
    scale = 3.0 / 2
    products = scale * (b[0] @ a[0] + b[1] @ a[1]) / 2
    factors = scale * ((b[0] + b[1]) / 2) @ ((a[0] + a[1]) / 2)
    written = motet.load_policy(tmp_path / "out").model.state_dict()[f"{name}.weight"] - base
    assert (written - products).abs().max() < 1e-6
    assert (factors - products).norm() > 0.3 * products.norm()


def test_an_adapter_and_a_full_model_merge(adapters: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (first, _), (_, weights) = adapters
    full = motet.load_policy(tiny_checkpoint)
    full.model.load_state_dict(weights)
    full.save(tmp_path / "full")
    merge_folders([first, tmp_path / "full"], tmp_path / "mixed", method="average")
    merge_folders([first, adapters[1][0]], tmp_path / "both", method="average")
    mixed, both = (motet.load_policy(tmp_path / name).model.state_dict() for name in ("mixed", "both"))
    assert all((mixed[name] - both[name]).abs().max() < 1e-6 for name in both)
    assert not (tmp_path / "mixed" / "adapter_config.json").exists()
    assert (tmp_path / "mixed" / "config.json").is_file() and (tmp_path / "mixed" / "tokenizer.json").is_file()


def test_rslora_scales_by_the_root(adapters: Any, broken: Any, tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = adapters[0][0]
    rooted = broken(use_rslora=True)  # rank 2: alpha / sqrt 2 instead of alpha / 2
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    base = motet.load_policy(tiny_checkpoint).model.state_dict()[name]
    steps = []
    for number, folder in enumerate((plain, rooted)):
        merge_folders([folder, folder], tmp_path / f"out{number}", method="average")
        steps.append(motet.load_policy(tmp_path / f"out{number}").model.state_dict()[name] - base)
    torch.testing.assert_close(steps[1], steps[0] * 2**0.5, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"peft_type": "LOHA"}, "peft_type='LOHA'"),
        ({"lora_alpha": None}, "lora_alpha=None"),
        ({"base_model_name_or_path": "someone/somewhere"}, "'someone/somewhere', which is not a local folder"),
        ({"base_model_name_or_path": None}, "not a local folder"),
    ],
)
def test_unsupported_adapters_are_rejected(
    adapters: Any, broken: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        merge_folders([adapters[1][0], broken(**settings)], tmp_path / "out", method="average")
    assert not (tmp_path / "out").exists()


def test_a_base_of_the_hub_is_found_in_its_cache(
    adapters: Any, broken: Any, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--someone--somewhere"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    shutil.copytree(tiny_checkpoint, cached / "snapshots" / ("a" * 40))
    named = broken(base_model_name_or_path="someone/somewhere")
    merge_folders([adapters[1][0], named], tmp_path / "cached", method="gaussian", base=Path("someone/somewhere"))
    local = [folder for folder, _ in adapters][::-1]
    merge_folders(local, tmp_path / "local", method="gaussian", base=tiny_checkpoint)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("cached", "local"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("lora_A"), "has only lora_B"),
        (without("lora"), "does not contain LoRA factors"),
        (lambda t: t | {"base_model.model.lm_head.weight": torch.zeros(1)}, "which is not a LoRA factor"),
        (lambda t: {name: tensor[:, :-1].contiguous() for name, tensor in t.items()}, "does not fit"),
        (lambda t: {name.replace("q_proj", "x_proj"): tensor for name, tensor in t.items()}, r"of shape None"),
    ],
)
def test_factors_that_do_not_fit_are_rejected(
    adapters: Any, broken: Any, tmp_path: Path, tensors: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        merge_folders([adapters[1][0], broken(tensors)], tmp_path / "out", method="average")
