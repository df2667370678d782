"""Sizes from configs equal those of the loaded policies; the published ones equal the published numbers."""

import json
from dataclasses import replace

import pytest

from motet.config import LoraConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError
from motet.estimation.building import model_size
from motet.policies import load_policy
from motet.policies.tiny.emu3 import make_tiny_emu3
from tests.policies.vlms import save_tiny
from tests.runs import save_tiny_janus

POOLING_HEAD = 12_660_736
"""Of the published vision tower: an attention layer, an MLP and a query, which transformers' tower does not have."""


def config_only(folder, checkpoint):
    """The folder with the checkpoint's config.json and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    return str(folder)


def counts(policy):
    return sum(p.numel() for p in policy.trainable().values())


def save(family, folder):
    if family == "janus":
        return save_tiny_janus(folder)
    if family == "emu3":
        model, processor = make_tiny_emu3(["a red circle"])
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder
    return save_tiny(folder, family)


@pytest.mark.parametrize("family", ["janus", "emu3", "qwen2_5_vl", "qwen3_vl"])
def test_parts_of_a_config_are_those_of_the_loaded_policy(family, tmp_path) -> None:
    checkpoint = save(family, tmp_path / "checkpoint")
    size = model_size(PolicyConfig(path=config_only(tmp_path / "config", checkpoint)), "float32")
    policy = load_policy(checkpoint, PolicyConfig(path=str(checkpoint), device="cpu"))
    assert size.trainable == counts(policy)
    assert size.parameters == sum(p.numel() for p in policy.model.parameters())
    for name, part in policy.parts.items():
        assert size.parts[name].parameters == sum(p.numel() for p in part.parameters())
    products = [
        m.weight.numel()
        for layer in policy.adapter.language_model.layers
        for m in layer.modules()
        if hasattr(m, "in_features")
    ]
    assert size.language.products == sum(products)
    assert size.kinds == policy.kinds
    layers = policy.adapter.language_model.layers
    assert size.units["language_model"] == tuple(sum(p.numel() for p in layer.parameters()) for layer in layers)
    assert size.root_bytes == size.sharded_bytes - 4 * sum(size.units["language_model"])


def test_adapters_are_counted_as_peft_makes_them(tmp_path) -> None:
    checkpoint = save_tiny_janus(tmp_path / "checkpoint")
    settings = PolicyConfig(
        path=str(checkpoint), lora=LoraConfig(rank=3, target_modules=("q_proj", "down_proj")), device="cpu"
    )
    size = model_size(settings, "bfloat16")
    assert size.trainable == counts(load_policy(checkpoint, settings)) > 0
    assert not any(part.trains for part in size.parts.values()) and size.language.trains


def test_published_sizes_need_no_folder() -> None:
    size = model_size(PolicyConfig(path="deepseek-community/Janus-Pro-1B"), "bfloat16")
    assert size.parameters + POOLING_HEAD == 2_089_297_547  # published
    assert size.trainable == 1_652_656_128
    assert size.parts["vision_model"].bytes == 2 * size.parts["vision_model"].parameters  # stored as bfloat16
    assert size.parts["lm_head"].bytes == 4 * size.parts["lm_head"].parameters  # what trains is float32
    assert "Janus-Pro-1B" in size.notes[0]


def test_what_is_missing_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json.*weights are not needed"):
        model_size(PolicyConfig(path=str(tmp_path)), "float32")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="'llama' model"):
        model_size(PolicyConfig(path=str(tmp_path)), "float32")
    with pytest.raises(ConfigError, match="a part 'head'"):
        model_size(PolicyConfig(path="Janus-Pro-1B", train=("head",)), "float32")
    with pytest.raises(ConfigError, match="no linear layer is called 'w1'"):
        model_size(PolicyConfig(path="Janus-Pro-1B", lora=LoraConfig(target_modules=("w1",))), "float32")


def test_tied_weights_count_once(tmp_path) -> None:
    checkpoint = save_tiny(tmp_path / "checkpoint", "qwen2_5_vl")
    untied = model_size(PolicyConfig(path=str(checkpoint)), "float32")
    config = json.loads((checkpoint / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (checkpoint / "config.json").write_text(json.dumps(config))
    tied = model_size(PolicyConfig(path=str(checkpoint)), "float32")
    assert untied.parameters - tied.parameters == untied.language.text_head
    head_alone = model_size(PolicyConfig(path=str(checkpoint), train=("lm_head",)), "float32")
    assert head_alone.parts["language_model"].trains  # the embeddings are the head
    assert replace(tied.language, trains=True) == tied.language
