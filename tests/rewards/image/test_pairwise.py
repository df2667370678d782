"""Rewards that compare an image with another image, and those of its size as a JPEG; arithmetic by hand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from motet.config import RewardConfig
from motet.core.errors import ConfigError, DataError, RewardError
from motet.rewards import bind_policy, resolve
from motet.testing import FakePolicy
from tests.rewards.judges import image, save_clip

ACTS = {"edit": "image", "restored": "image", "caption": "text"}
COLUMNS = ("image", "caption", "target_caption", "other", "prompt")


def acted(**acts):
    """One completion: images or texts by the names of their acts."""
    return [
        {
            "role": "assistant",
            "name": name,
            "content": act if isinstance(act, str) else [{"type": "image", "image": act}],
        }
        for name, act in acts.items()
    ]


def bound(name, columns=COLUMNS, acts=None, **options):
    config = RewardConfig(name=name, acts=acts, options=options)
    (reward,) = bind_policy([resolve(config, ACTS, columns)], FakePolicy())
    return reward


def flat(level, size=(8, 8)):
    return Image.new("RGB", size, (level, level, level))


GREY, LIGHTER = flat(100), flat(110)
DECIBELS = 10 * math.log10(255**2 / 10**2)  # 28.13: every pixel is 10 levels off


def test_the_size_as_a_jpeg_by_hand():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    sizes = []
    for one in (noise, flat(9, (32, 32))):
        buffer = io.BytesIO()
        one.save(buffer, format="JPEG", quality=95)
        sizes.append(len(buffer.getvalue()))
    assert sizes[0] > 2 * sizes[1]
    drawn = [acted(edit=noise), acted(edit=flat(9, (32, 32))), []]
    large = bound("jpeg_incompressibility")(prompts=[], completions=drawn)
    small = bound("jpeg_compressibility")(prompts=[], completions=drawn)
    assert large == [sizes[0] / 1000, sizes[1] / 1000, None]
    assert small == [-sizes[0] / 500_000, -sizes[1] / 500_000, None]
    with pytest.raises(RewardError, match="'jpeg_compressibility' got a completion without an image"):
        bound("jpeg_compressibility")(prompts=[], completions=[acted(caption="x")])


def test_psnr_by_hand():
    completions = [acted(edit=LIGHTER), acted(edit=GREY), acted(edit=flat(110, (4, 4))), [], acted(edit=GREY)]
    images = [[GREY]] * 4 + [None]
    assert bound("psnr")(completions=completions, images=images) == pytest.approx([DECIBELS, 60, DECIBELS, None, None])
    assert bound("psnr", cap=20)(completions=completions[:1], images=images[:1]) == [20]


def test_which_act_is_compared_with_what():
    one = acted(edit=LIGHTER, caption="x", restored=GREY)
    ask = {"completions": [one], "images": [[GREY]], "other": [LIGHTER]}
    assert bound("psnr")(**ask) == [60]  # the last image: restored
    assert bound("psnr", act="edit")(**ask) == pytest.approx([DECIBELS])
    assert bound("psnr", act="edit", column="other")(**ask) == [60]
    assert bound("psnr", column="image", act="restored")(**ask) == [60]
    assert bound("psnr", act="restored", to="edit")(**ask) == pytest.approx([DECIBELS])
    lacking = {**ask, "completions": [acted(edit=GREY)]}
    assert bound("psnr", act="restored", to="edit")(**lacking) == [None]
    assert bound("psnr", act="restored")(**lacking) == [None]


def test_it_sees_the_acts_of_its_options_and_needs_its_column():
    made = bound("psnr", acts=("caption",), act="edit", to="restored", columns=())
    assert (made.acts, made.reads_acts, made.required_columns) == (("caption",), ("edit", "restored"), ())
    assert bound("psnr", column="other").required_columns == ("other",)
    with pytest.raises(RewardError, match=r"'psnr' needs column 'othr'.*Did you mean 'other'"):
        bound("psnr", column="othr")
    with pytest.raises(ConfigError, match=r"name the act 'restord'.*Did you mean 'restored'"):
        bound("psnr", act="restord")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": -1}, "cap=-1 of 'psnr'"),
        ({"act": ""}, "act='' of 'psnr' is not a name of an act"),
        ({"to": 3}, "to=3"),
        ({"column": None}, "column=None"),
        ({"act": "edit", "to": "edit"}, "to='edit' of 'psnr' is the scored act itself"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        bound("psnr", **options)


def test_a_column_without_images_is_named():
    with pytest.raises(DataError, match="column 'other' holds a str"):
        bound("psnr", column="other")(completions=[acted(edit=GREY)], other=["a.png"])


# --- CLIP

SOURCE, EDITED = image("red"), image("blue")
CAPTIONS = ["a red dog", "a blue dog"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(save_clip(tmp_path_factory.mktemp("clip")))


def embeddings(path):
    """Unit embeddings of source, edit and both captions, by transformers' own forward pass."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(path).eval()
    pixels = AutoImageProcessor.from_pretrained(path)(images=[SOURCE, EDITED], return_tensors="pt")["pixel_values"]
    words = AutoTokenizer.from_pretrained(path)(CAPTIONS, return_tensors="pt")
    with torch.no_grad():
        out = model(input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels)
    return out.image_embeds, out.text_embeds


def test_the_direction_of_an_edit_by_clips_own_embeddings(clip):
    images, texts = embeddings(clip)
    moved, told = images[1] - images[0], texts[1] - texts[0]
    wanted = float(moved @ told / (moved.norm() * told.norm()))
    ask = {
        "prompts": [],
        "completions": [acted(edit=EDITED), acted(edit=SOURCE), acted(edit=EDITED), acted(edit=EDITED), []],
        "images": [[SOURCE]] * 5,
        "caption": [CAPTIONS[0]] * 2 + [CAPTIONS[1], None, CAPTIONS[0]],
        "target_caption": [CAPTIONS[1]] * 2 + [CAPTIONS[0], *CAPTIONS],
    }
    found = bound("clip_direction", path=clip)(**ask)
    assert found[3:] == [None, None]
    assert found[:3] == pytest.approx([wanted, 0.0, -wanted], abs=1e-3)
    assert abs(wanted) > 0.01
    assert bound("clip_direction", path=clip, batch_size=1)(**ask)[0] == pytest.approx(wanted, abs=1e-5) == found[0]


def test_the_similarity_of_images_by_clips_own_embeddings(clip):
    images, _ = embeddings(clip)
    ask = {"completions": [acted(edit=EDITED, restored=SOURCE)], "images": [[SOURCE]]}
    wanted = pytest.approx([float(images[0] @ images[1])], abs=1e-5)
    assert bound("clip_image_similarity", path=clip)(**ask) == pytest.approx([1.0], abs=1e-5)
    assert bound("clip_image_similarity", path=clip, act="edit")(**ask) == wanted
    assert bound("clip_image_similarity", path=clip, act="restored", to="edit")(**ask) == wanted
    assert bound("clip_image_similarity", path=clip)(completions=[[]], images=[[SOURCE]]) == [None]


@pytest.mark.parametrize("name", ["clip_direction", "clip_image_similarity"])
def test_both_need_a_model_and_its_captions(name):
    with pytest.raises(ConfigError, match=f"path=None of '{name}'"):
        bound(name)
    with pytest.raises(ConfigError, match=f"column='' of '{name}'"):
        bound(name, path="x", column="")
    with pytest.raises(RewardError, match="'clip_direction' needs column 'target_caption'"):
        bound("clip_direction", path="x", columns=("image", "caption"))
