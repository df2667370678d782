"""CLIP score on a tiny random CLIP of the real class, saved and loaded."""

import pytest
import torch

from motet.config import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import bind_policy, resolve
from motet.rewards.image.clip import ClipScore
from motet.testing import FakePolicy
from tests.rewards.judges import image, save_clip, shows

PROMPTS = ["a red dog", "a blue bus on the man", "a red dog", "a cat " * 30]
IMAGES = [image("red"), image("blue", (30, 12)), image("green"), image("red")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(save_clip(tmp_path_factory.mktemp("clip")))


def bound(path, **options):
    config = RewardConfig(name="clip_score", options={"path": path, **options})
    (reward,) = bind_policy([resolve(config, {"image": "image"}, ("prompt",))], FakePolicy())
    return reward


def test_it_is_the_cosine_of_clips_own_embeddings(clip):
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(clip).eval()
    tokenizer, images = AutoTokenizer.from_pretrained(clip), AutoImageProcessor.from_pretrained(clip)
    wanted = []
    for one, text in zip(IMAGES, PROMPTS, strict=True):
        ids = tokenizer([text], truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            pixels = images(images=[one], return_tensors="pt")["pixel_values"]
            out = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=pixels)
        wanted.append(float((out.logits_per_image / model.logit_scale.exp()).detach()))
    ask = {"prompts": [], "completions": shows(*IMAGES), "prompt": PROMPTS}
    assert bound(clip)(**ask) == pytest.approx(wanted, abs=1e-5)
    assert bound(clip, scale=2.5, batch_size=1)(**ask) == pytest.approx([2.5 * v for v in wanted], abs=1e-5)
    assert len({round(v, 4) for v in wanted}) == 4


def test_rows_without_a_prompt_get_none(clip):
    assert bound(clip)(prompts=[], completions=shows(IMAGES[0]), prompt=[None]) == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "path=None of 'clip_score' is not a path of a CLIP model"),
        ({"path": "x", "scale": "2"}, "scale='2'"),
        ({"path": "x", "scale": float("inf")}, "scale=inf"),
        ({"path": "x", "batch_size": 1.5}, "batch_size=1.5"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        ClipScore(**options)


def test_a_path_without_a_model_raises_before_the_first_sample():
    with pytest.raises(ConfigError, match=r"rewards.options.path of 'clip_score': There is no model at 'nowhere'"):
        bound("nowhere")
