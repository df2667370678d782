"""scripts/make_janus.py: the published size."""

import runpy
from pathlib import Path

import pytest
import torch

MAKE = runpy.run_path(str(Path(__file__).parent.parent.parent / "scripts" / "make_janus.py"))["make_janus"]


@pytest.mark.parametrize(("layers", "num_parameters"), [(None, 1_652_656_128), (2, 522_201_088)])
def test_language_model_has_the_published_size(layers, num_parameters):
    with torch.device("meta"):
        model = MAKE("Janus-Pro-1B", layers, 0)
    assert (
        sum(p.numel() for part in (model.model.language_model, model.lm_head) for p in part.parameters())
        == num_parameters
    )
    assert model.config.vision_config.num_image_tokens == 576 and model.config.vq_config.num_embeddings == 16384
