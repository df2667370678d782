"""ImageReward on a tiny checkpoint in the published layout, against BLIP and the head by hand."""

import pytest
import torch
from PIL import Image

from motet.core.errors import ConfigError
from motet.rewards.reward_models.image_reward import ImageReward
from motet.rewards.reward_models.preprocessing import MEAN, STD, cropped_pixels
from tests.rewards.judges import WORDS, save_tokenizer
from tests.rewards.reward_models.scoring import IMAGES, PROMPTS, bound, score

WIDTHS = [64, 1024, 128, 64, 16, 1]


def tiny_blip():
    from transformers import BlipConfig, BlipForImageTextRetrieval

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 32, "initializer_range": 0.5}
    text = {"vocab_size": len(WORDS), "hidden_size": 64, "encoder_hidden_size": 128, "max_position_embeddings": 40}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "sep_token_id": 0, "pad_token_id": 0}
    vision = {"hidden_size": 128, "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "layer_norm_eps": 1e-6}
    return BlipForImageTextRetrieval(
        BlipConfig(text_config={**sizes, **text, **ids}, vision_config={**sizes, **vision})
    ).eval()


def published_layout(blip):
    """BLIP's weights under the names of Salesforce's code, by hand, and a head."""
    weights = {}
    for name, value in blip.state_dict().items():
        if name.startswith("vision_model.encoder.layers."):
            own = name.removeprefix("vision_model.encoder.layers.").replace("layer_norm", "norm")
            own = own.replace("self_attn.projection", "attn.proj").replace("self_attn", "attn")
            weights["blip.visual_encoder.blocks." + own] = value
        elif not name.startswith("vision_model"):
            weights["blip." + name] = value
    own = blip.state_dict()
    weights["blip.visual_encoder.cls_token"] = own["vision_model.embeddings.class_embedding"]
    weights["blip.visual_encoder.pos_embed"] = own["vision_model.embeddings.position_embedding"]
    for kind in ("weight", "bias"):
        weights[f"blip.visual_encoder.patch_embed.proj.{kind}"] = own[f"vision_model.embeddings.patch_embedding.{kind}"]
        weights[f"blip.visual_encoder.norm.{kind}"] = own[f"vision_model.post_layernorm.{kind}"]
    del weights["blip.itm_head.weight"], weights["blip.itm_head.bias"]  # the published BLIP has no such head
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]  # a buffer of the published code
    for n, of, to in zip((0, 2, 4, 6, 7), WIDTHS, WIDTHS[1:], strict=False):
        weights[f"mlp.layers.{n}.weight"] = torch.randn(to, of) / of**0.5
        weights[f"mlp.layers.{n}.bias"] = torch.randn(to)
    return {name: value.clone() for name, value in weights.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_reward")
    save_tokenizer(folder)
    blip = tiny_blip()
    weights = published_layout(blip)
    torch.save(weights, folder / "ImageReward.pt")
    return folder, blip, weights


def by_hand(blip, weights, folder, image, text):
    """One score: BLIP's own forward pass up to the state of [CLS], then the head, then the published statistics."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)([text], truncation=True, max_length=35, return_tensors="pt")
    with torch.no_grad():
        state = blip(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            pixel_values=cropped_pixels([image], 16),
            use_itm_head=True,
        )
    features = state.question_embeds[0, 0]  # what its own match head is given
    for n in (0, 2, 4, 6, 7):
        features = weights[f"mlp.layers.{n}.weight"] @ features + weights[f"mlp.layers.{n}.bias"]
    return (float(features) - 0.16717362830052426) / 1.0333394966054072


def test_the_score_is_the_standardised_head_on_blips_first_state(checkpoint):
    folder, blip, weights = checkpoint
    wanted = [by_hand(blip, weights, folder, i, t) for i, t in zip(IMAGES, PROMPTS, strict=True)]
    options = {"path": str(folder / "ImageReward.pt"), "tokenizer": str(folder)}
    assert score(bound("image_reward", **options)) == pytest.approx(wanted, abs=1e-4)
    assert score(bound("image_reward", **options, batch_size=1)) == pytest.approx(wanted, abs=1e-4)
    assert len({round(value, 4) for value in wanted}) == 4
    assert score(bound("image_reward", **options), [], []) == []
    rounded = score(bound("image_reward", **options, dtype="bfloat16"))
    assert rounded == pytest.approx(wanted, abs=0.3) and rounded != pytest.approx(wanted, abs=1e-4)


def test_images_are_scaled_and_cropped_to_a_square():
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste("white", (24, 0, 40, 16))
    assert torch.allclose(cropped_pixels([wide], 16)[0] * std + mean, torch.ones(3, 16, 16), atol=1e-6)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    for image in IMAGES:
        assert torch.allclose(clip(images=[image], return_tensors="pt")["pixel_values"], cropped_pixels([image], 16))


def test_incomplete_and_foreign_weights_are_named(checkpoint, tmp_path):
    folder, _, weights = checkpoint

    def load(changed):
        torch.save(changed, tmp_path / "w.pt")
        bound("image_reward", path=str(tmp_path / "w.pt"), tokenizer=str(folder))

    for gone, named in (
        ("blip.visual_encoder.blocks.1.attn.qkv.bias", "vision_model.encoder.layers.1.self_attn.qkv.bias"),
        ("blip.visual_encoder.patch_embed.proj.weight", "vision_model.embeddings.patch_embedding.weight"),
        ("blip.text_encoder.encoder.layer.0.crossattention.self.key.weight", "crossattention.self.key.weight"),
        ("mlp.layers.7.bias", "layers.7.bias"),
    ):
        with pytest.raises(ConfigError, match=rf"options.path of 'image_reward'.*lacks weights.*{named}"):
            load({name: value for name, value in weights.items() if name != gone})
    with pytest.raises(ConfigError, match=r"holds a weight 'visual.proj', which ImageReward does not have"):
        load({**weights, "visual.proj": torch.zeros(1)})


@pytest.mark.parametrize(
    ("options", "message"), [({"path": None}, "path=None of 'image_reward'"), ({"tokenizer": ""}, "tokenizer=''")]
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        ImageReward(**options)
