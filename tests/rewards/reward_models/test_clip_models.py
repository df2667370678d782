"""PickScore, HPS v2 and the aesthetic predictor: their formulas, on tiny checkpoints in the published layouts."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from motet.core.errors import ConfigError
from motet.rewards import resolve_all
from motet.rewards.reward_models.aesthetic import Aesthetic
from motet.rewards.reward_models.heads import LinearHead
from motet.rewards.reward_models.hps_v2 import HPSv2
from motet.rewards.reward_models.open_clip import convert_open_clip
from motet.rewards.reward_models.pick_score import PickScore
from motet.rewards.reward_models.preprocessing import MEAN, STD, padded_pixels
from tests.rewards.reward_models.scoring import IMAGES, PROMPTS, bound, score


def embeddings(path, pixels=None):
    """CLIP's own embeddings of IMAGES (or of `pixels`) and PROMPTS, one input at a time, and its logit scale."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(path).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(path), AutoImageProcessor.from_pretrained(path)
    pixels = (
        [processor(images=[one], return_tensors="pt")["pixel_values"] for one in IMAGES] if pixels is None else pixels
    )
    images, texts = [], []
    for one, text in zip(pixels, PROMPTS, strict=True):
        ids = tokenizer([text], truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            out = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=one)
        images.append(out.image_embeds[0])
        texts.append(out.text_embeds[0])
    return torch.stack(images), torch.stack(texts), model.logit_scale.detach()


def to_open_clip(path):
    """The weights of transformers' CLIPModel in open_clip's layout: by hand, the other way round."""
    from transformers import CLIPModel

    own = CLIPModel.from_pretrained(path).state_dict()
    weights = {"logit_scale": own["logit_scale"], "text_projection": own["text_projection.weight"].T}
    weights["visual.proj"] = own["visual_projection.weight"].T
    weights["visual.conv1.weight"] = own["vision_model.embeddings.patch_embedding.weight"]
    weights["visual.class_embedding"] = own["vision_model.embeddings.class_embedding"]
    weights["token_embedding.weight"] = own["text_model.embeddings.token_embedding.weight"]
    norms = [("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm")]
    norms.append(("ln_final", "text_model.final_layer_norm"))
    for tower, there in (("text_model", ""), ("vision_model", "visual.")):
        weights[f"{there}positional_embedding"] = own[f"{tower}.embeddings.position_embedding.weight"]
        here, block = f"{tower}.encoder.layers.0", f"{there}transformer.resblocks.0"
        names = [("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]
        names.append(("attn.out_proj", "self_attn.out_proj"))
        norms += [(f"{block}.{a}", f"{here}.{b}") for a, b in names]
        for kind in ("weight", "bias"):
            thirds = [own[f"{here}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            weights[f"{block}.attn.in_proj_{kind}"] = torch.cat(thirds)
    weights |= {f"{a}.{kind}": own[f"{b}.{kind}"] for a, b in norms for kind in ("weight", "bias")}
    assert len(weights) == len(own) - 2 * 2 * 2  # six matrices and vectors of attention are two, in each tower
    return {name: value.clone().contiguous() for name, value in weights.items()}


@pytest.fixture(scope="module")
def hps(clip, tmp_path_factory):
    """HPS v2's layout: a torch file with the state dict beside other things."""
    path = tmp_path_factory.mktemp("hps") / "HPS.pt"
    torch.save({"epoch": 3, "state_dict": to_open_clip(clip)}, path)
    return str(path)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The aesthetic predictor's layout, with the gaps that its dropouts leave in the numbers of its layers."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("head") / "head.pth"
    widths = [8, 1024, 128, 64, 16, 1]
    layers = zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False)
    weights = {f"layers.{n}.weight": torch.randn(to, of) / of**0.5 for n, of, to in layers}
    weights |= {name.replace("weight", "bias"): torch.randn(len(value)) for name, value in weights.items()}
    torch.save(weights, path)
    return str(path)


def test_pick_score_is_the_logit_scale_times_the_cosine(clip):
    images, texts, scale = embeddings(clip)
    wanted = [float(scale.exp() * F.cosine_similarity(a, b, dim=0)) for a, b in zip(images, texts, strict=True)]
    reward = bound("pick_score", path=clip, processor=clip)
    assert score(reward) == pytest.approx(wanted, abs=1e-4)
    assert score(bound("pick_score", path=clip, processor=clip, batch_size=1)) == pytest.approx(wanted, abs=1e-4)
    assert max(wanted) > 2, "without the logit scale no score is above 1"


def test_hps_v2_is_the_cosine_of_open_clips_weights(clip, hps):
    pixels = [padded_pixels([one], 16)["pixel_values"] for one in IMAGES]
    images, texts, _ = embeddings(clip, pixels)
    wanted = [float(a @ b) for a, b in zip(images, texts, strict=True)]
    assert score(bound("hps_v2", path=hps, base=clip)) == pytest.approx(wanted, abs=1e-5)
    assert score(bound("hps_v2", path=hps, base=clip, batch_size=3)) == pytest.approx(wanted, abs=1e-5)


def test_hps_v2_pads_images_with_black_and_keeps_their_aspect_ratio():
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    wide = padded_pixels([Image.new("RGB", (64, 32), "white")], 16)["pixel_values"][0] * std + mean
    assert torch.allclose(wide[:, 4:12], torch.ones(3, 8, 16), atol=1e-5)
    assert torch.allclose(wide[:, :4], torch.zeros(3, 4, 16), atol=1e-6)
    assert torch.allclose(wide[:, 12:], torch.zeros(3, 4, 16), atol=1e-6)
    sliver = padded_pixels([Image.new("RGB", (1, 90), "white")], 16)["pixel_values"][0] * std + mean
    assert float(sliver[0].sum()) == pytest.approx(16, abs=1e-3), "one column of white"


def test_the_aesthetic_score_is_five_linear_layers_on_unit_embeddings(clip, head):
    images, _, _ = embeddings(clip)
    weights = torch.load(head, weights_only=True)
    wanted = F.normalize(images, dim=-1)
    for n in (0, 2, 4, 6, 7):  # no activations between them
        wanted = wanted @ weights[f"layers.{n}.weight"].T + weights[f"layers.{n}.bias"]
    reward = bound("aesthetic", path=clip, head=head)
    assert score(reward) == pytest.approx(wanted[:, 0].tolist(), abs=1e-4)
    assert len({round(value, 4) for value in wanted[:, 0].tolist()}) == 3, "the prompt plays no part"


@pytest.mark.parametrize("name", ["pick_score", "hps_v2", "aesthetic"])
def test_bfloat16_gives_nearly_the_same_scores_and_no_images_none(name, clip, hps, head):
    options = {
        "pick_score": {"path": clip, "processor": clip},
        "hps_v2": {"path": hps, "base": clip},
        "aesthetic": {"path": clip, "head": head},
    }[name]
    exact, rounded = bound(name, **options), bound(name, **options, dtype="bfloat16", device="cpu")
    assert rounded.function._clip.model.dtype == torch.bfloat16
    spread = 0.05 * max(map(abs, score(exact)))
    assert score(rounded) == pytest.approx(score(exact), abs=spread)
    assert score(rounded) != score(exact)
    assert score(exact, [], []) == []
    assert exact(prompts=[], completions=[[]], prompt=["a cat"]) == [None]


def test_a_row_without_a_prompt_gets_none(clip):
    scores = score(bound("pick_score", path=clip, processor=clip), prompts=["a cat", None, None, "a dog"])
    assert [value is None for value in scores] == [False, True, True, False]


def test_incomplete_weights_are_named(clip, hps, head, tmp_path):
    weights = torch.load(hps, weights_only=True)["state_dict"]
    del weights["visual.proj"]
    save_file(weights, tmp_path / "hps.safetensors")
    with pytest.raises(ConfigError, match=r"options.path of 'hps_v2'.*lacks weights.*: visual_projection.weight"):
        bound("hps_v2", path=str(tmp_path / "hps.safetensors"), base=clip)
    layers = torch.load(head, weights_only=True)
    torch.save({k: v for k, v in layers.items() if not k.startswith("layers.7")}, tmp_path / "head.pth")
    with pytest.raises(ConfigError, match=r"lacks weights.*: layers.7.bias, layers.7.weight"):
        bound("aesthetic", path=clip, head=str(tmp_path / "head.pth"))
    torch.save({**layers, "layers.7.weight": torch.ones(1, 9)}, tmp_path / "head.pth")
    with pytest.raises(ConfigError, match=r"another shape: layers.7.weight"):
        bound("aesthetic", path=clip, head=str(tmp_path / "head.pth"))


def test_weights_of_another_model_are_rejected(clip, head, tmp_path):
    with pytest.raises(ConfigError, match=r"a weight 'layers.0.weight', which a vision transformer of open_clip"):
        bound("hps_v2", path=head, base=clip)
    torch.save({"weights": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="does not hold tensors by name"):
        bound("hps_v2", path=str(tmp_path / "list.pt"), base=clip)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        bound("hps_v2", path=str(tmp_path / "text.pt"), base=clip)
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        bound("hps_v2", path=str(tmp_path), base=clip)
    with pytest.raises(ConfigError, match=r"options.path of 'hps_v2': 'nobody/nothing' is not a local folder"):
        bound("hps_v2", path="nobody/nothing/HPS.pt", base=clip)
    with pytest.raises(ConfigError, match=r"There is no file at 'nowhere.pt'"):
        bound("hps_v2", path="nowhere.pt", base=clip)


def test_a_file_of_the_hub_is_fetched_by_its_name(clip, hps, monkeypatch):
    asked = []
    monkeypatch.setattr("motet.rewards.reward_models.weights.missing_reason", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: asked.append(names) or hps)
    bound("hps_v2", path="xswu/HPSv2/HPS.pt", base=clip)
    assert asked == [("xswu/HPSv2", "HPS.pt")]


def test_converted_names_keep_every_weight(hps):
    weights = torch.load(hps, weights_only=True)["state_dict"]
    converted = convert_open_clip(weights, key="k", path="p")
    assert sum(value.numel() for value in converted.values()) == sum(value.numel() for value in weights.values())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PickScore, {"path": ""}, "path='' of 'pick_score' is not a path of a CLIP model"),
        (PickScore, {"dtype": "float16"}, "dtype='float16' of 'pick_score' must be one of auto, float32, bfloat16"),
        (PickScore, {"device": "gpu7"}, "device='gpu7' of 'pick_score' is not a torch device"),
        (PickScore, {"batch_size": 0}, "batch_size=0"),
        (HPSv2, {"base": None}, "base=None of 'hps_v2'"),
        (Aesthetic, {}, "head=None of 'aesthetic' is not a file of the aesthetic predictor's layers"),
    ],
)
def test_wrong_options_raise(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)


def test_a_device_that_is_not_there_is_named(clip):
    with pytest.raises(ConfigError, match="device='cuda:77' of 'pick_score' is not on"):
        bound("pick_score", path=clip, processor=clip, device="cuda:77")


def test_a_recipe_needs_no_options_for_pick_score_and_hps():
    from motet.config import RewardConfig

    resolve_all([RewardConfig(name="pick_score"), RewardConfig(name="hps_v2")], {"image": "image"}, ("prompt",))


def test_the_head_has_no_activation():
    torch.manual_seed(0)
    head = LinearHead(4).eval()
    with torch.no_grad():
        x, y = torch.randn(2, 1, 4)
        assert torch.allclose(head(x + y), head(x) + head(y) - head(torch.zeros(1, 4)), atol=1e-5)
