"""BLIP as captioner: a tiny random model of the real class, saved and loaded."""

import pytest
import torch

from motet.core.errors import ConfigError
from motet.rewards.captions.captioners import BlipCaptioner
from tests.rewards.judges import image, save_blip

CPU = torch.device("cpu")


def test_blip_describes_each_image_as_it_would_alone(tmp_path):
    path = str(save_blip(tmp_path))
    captioner = BlipCaptioner.open(path, CPU, key="captioner_path", max_tokens=6, batch_size=2)
    images = [image("red"), image("blue"), image("green", (9, 30))]
    captions = captioner(images)
    assert captions == [captioner([p])[0] for p in images] == captioner(images)
    assert all(captions) and all(len(caption.split()) <= 6 for caption in captions)
    shorter = BlipCaptioner.open(path, CPU, key="captioner_path", max_tokens=2, batch_size=2)
    assert all(len(text.split()) <= 2 for text in shorter(images)) and shorter(images) != captions
    assert captioner([]) == []


def test_blip_reads_the_image_as_its_processor_says(tmp_path):
    captioner = BlipCaptioner.open(str(save_blip(tmp_path)), CPU, key="k", max_tokens=5, batch_size=4)
    shown = image("blue")
    pixels = captioner.image_processor(images=[shown], return_tensors="pt")["pixel_values"]
    ids = captioner.model.generate(pixel_values=pixels, max_new_tokens=5, do_sample=False)
    assert captioner([shown]) == [captioner.tokenizer.decode(ids[0], skip_special_tokens=True)]


def test_an_invalid_captioner_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"k='.*' cannot be loaded as BlipForConditionalGeneration"):
        BlipCaptioner.open(str(tmp_path), CPU, key="k", max_tokens=5, batch_size=4)
