"""A Qwen-VL folder: what we save transformers loads, and what is broken is refused with a reason."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from motet.config import LoraConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError
from motet.core.trajectory import Sampling
from motet.policies import load_policy
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.qwen_vl.checkpoint import open_vlm
from motet.policies.tiny.qwen_vl import make_tiny_vlm
from motet.weights.hf_output import suppress_hf_output
from tests.policies.teacher import sound_transformers
from tests.policies.vlms import conversations, open_policy, requests, save_tiny, shown, worst

ATOL = 1e-5


@sound_transformers
def test_what_is_saved_loads_in_transformers_and_here(vlm: VlmPolicy, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    with suppress_hf_output():
        theirs = AutoModelForImageTextToText.from_pretrained(tmp_path)
        tokenizer, image_processor = (
            AutoTokenizer.from_pretrained(tmp_path),
            AutoImageProcessor.from_pretrained(tmp_path),
        )
    assert type(theirs) is type(vlm.model)
    context = conversations()[2]
    encoding = vlm.encoder.encode(context, max_new_tokens=1)
    inputs = {"input_ids": encoding.ids[None], **shown(vlm, encoding, len(encoding.ids))}
    with torch.no_grad():
        assert torch.equal(theirs(**inputs).logits, vlm.model(**inputs).logits)
    chat = context.to_chat()
    assert tokenizer.apply_chat_template(chat) == vlm.encoder.tokenizer.apply_chat_template(chat)
    images = [part["image"] for turn in chat for part in turn["content"] if part["type"] == "image"]
    assert torch.equal(image_processor(images=images, return_tensors="pt")["pixel_values"], encoding.pixels)
    again = open_policy(tmp_path)
    acts = vlm.act(requests(context), Sampling(max_tokens=6))
    assert worst(again.log_probs(acts), vlm.log_probs(acts)) == 0.0
    assert again.adapter.stop_ids == vlm.adapter.stop_ids


def test_a_bfloat16_checkpoint_trains_in_float32_and_is_kept_so(vlm_checkpoint: Path, tmp_path: Path) -> None:
    half, resaved = tmp_path / "half", tmp_path / "resaved"
    policy = open_policy(vlm_checkpoint)
    policy.model.to(torch.bfloat16)
    policy.save(half)
    mixed = VlmPolicy(*open_vlm(str(half), "auto"), autocast=torch.bfloat16)
    mixed.train_parts(["lm_head"])
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32, torch.bfloat16}
    acts = mixed.act(requests(*conversations()), Sampling(max_tokens=6))
    assert worst(mixed.log_probs(acts), [act.log_probs for act in acts]) < 0.1
    assert mixed.hidden_after([acts[0].encoding], torch.ones(2, 32)).shape == (1, 2, 32)
    with torch.no_grad():
        mixed.model.lm_head.weight.add_(1e-6)  # lost in bfloat16
    mixed.save(resaved)
    again, _ = open_vlm(str(resaved), "auto")
    assert torch.equal(again.lm_head.weight, mixed.model.lm_head.weight)


def test_the_largest_picture_that_is_read_is_a_setting(vlm_checkpoint: Path, checkpoint: Path) -> None:
    path = str(vlm_checkpoint)
    whole, small = load_policy(path), load_policy(path, PolicyConfig(path=path, max_pixels=64))
    context = conversations()[2]
    seen, less = (len(policy.encoder.encode(context, max_new_tokens=1).pixels) for policy in (whole, small))
    side = small.encoder.image_processor.patch_size
    images = sum(part["type"] == "image" for turn in context.to_chat() for part in turn["content"])
    assert 0 < less < seen and less * side**2 <= images * max(
        64, (side * small.encoder.image_processor.merge_size) ** 2
    )
    with pytest.raises(ConfigError, match="max_pixels=64 applies to Qwen-VL"):
        load_policy(checkpoint, PolicyConfig(path=str(checkpoint), max_pixels=64))


def test_an_adapter_is_saved_as_pefts(vlm_checkpoint: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    policy = open_policy(vlm_checkpoint)
    policy.add_lora(LoraConfig(rank=4, alpha=8.0))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1)
    policy.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    base, processor = open_vlm(str(vlm_checkpoint), torch.float32)
    with suppress_hf_output():
        again = VlmPolicy(peft.PeftModel.from_pretrained(base, str(tmp_path)), processor)
    acts = policy.act(requests(*conversations(), n=1), Sampling(max_tokens=6))
    assert worst(again.log_probs(acts), [act.log_probs for act in acts]) < ATOL


def test_a_template_beside_the_processor_alone_is_found(vlm_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vlm_checkpoint, tmp_path / "copy")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    _, processor = open_vlm(str(folder), torch.float32)
    assert processor.tokenizer.chat_template == template


# ---- what is refused ----------------------------------------------------------------------------------------------


def refused(folder: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_vlm(str(folder), torch.float32)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900  # transformers names the folder thrice
    return str(caught.value)


def test_other_models_and_missing_files_are_refused(checkpoint: Path, vlm_checkpoint: Path, tmp_path: Path) -> None:
    assert "is a 'janus' model; vision-language policies are of type qwen2_5_vl or qwen3_vl" in refused(checkpoint)
    assert "holds no config.json" in refused(tmp_path)
    assert "cannot be loaded" in refused("nobody/nothing")
    for missing in ("model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        folder = shutil.copytree(vlm_checkpoint, tmp_path / missing)
        (folder / missing).unlink()
        assert "cannot be loaded" in refused(folder)


def test_weights_that_do_not_fit_are_refused(vlm_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vlm_checkpoint, tmp_path / "copy")
    loaded = load_file(folder / "model.safetensors")
    weights = {key: weight.clone() for key, weight in loaded.items()}  # the file under them is about to be written
    name = next(key for key in sorted(weights) if key.endswith("q_proj.weight"))
    rest = {key: weight for key, weight in weights.items() if key != name}
    for stored, verb in [
        (rest, "lacks"),
        ({**weights, "extra": weights[name].clone()}, "has unknown"),
        ({**rest, name: torch.zeros(3, 3)}, "has, in another shape,"),
    ]:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        assert f"{verb} weights: " in refused(folder)


def test_sliding_windows_are_refused(vlm_checkpoint: Path) -> None:
    model, processor = open_vlm(str(vlm_checkpoint), torch.float32)
    model.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(CheckpointError, match="use_sliding_window=true"):
        VlmPolicy(model, processor)


def test_a_folder_that_cannot_be_written_is_an_error(vlm: VlmPolicy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        vlm.save(tmp_path / "file" / "folder")


# ---- tiny models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_default_tiny_model_looks_at_small_pictures(family: str) -> None:
    model, processor = make_tiny_vlm(family)
    policy = VlmPolicy(model, processor)
    encoding = policy.encoder.encode(conversations()[1], max_new_tokens=1)
    assert encoding.image_sizes.tolist() == [[1, 8, 8]]
    assert int((encoding.ids == policy.encoder.image_id).sum()) == 16
    again, _ = make_tiny_vlm(family)
    pairs = zip(model.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(ours, theirs) for (a, ours), (b, theirs) in pairs)


def test_a_tiny_model_takes_a_tokenizer(tmp_path: Path) -> None:
    _, processor = make_tiny_vlm(corpus=["violet hexagon"] * 3, vocab_size=300)
    words = processor.tokenizer
    model, other = make_tiny_vlm("qwen3_vl", tokenizer=words)
    assert other.tokenizer is words and model.config.text_config.vocab_size == len(words)
    with pytest.raises(ConfigError, match="family 'qwen9'"):
        make_tiny_vlm("qwen9")


def test_a_saved_tiny_model_is_a_checkpoint(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tied", "qwen2_5_vl", tied=True)
    model, _ = open_vlm(str(folder), torch.float32)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
