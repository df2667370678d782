"""What Qwen-VL's vision tower derives from the sizes of its images, computed on the host: on a GPU each look waits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from motet.numerics.transfers import to_device


def precomputed_vision_inputs(visual: Any, grids: Int[Tensor, "I 3"], device: torch.device) -> dict[str, Tensor]:
    """Arguments of `get_image_features`, with transformers' names, for images of these sizes (on the CPU).

    The borders of the images in the sequence of patches are needed on the host, where attention runs image by image;
    on the device by flash attention alone, which takes all at once.
    """
    merge = visual.spatial_merge_size
    borders = {"image_cu_seqlens": get_vision_cu_seqlens(grids)}
    indices = {"image_position_ids": get_vision_position_ids(grids, merge)}
    if hasattr(visual, "window_size"):  # Qwen2.5-VL
        window_index, borders["image_cu_window_seqlens"] = get_vision_window_index(
            grids, merge, visual.window_size, visual.patch_size
        )
        indices["image_window_index"] = window_index
    else:  # Qwen3-VL
        indices["image_interp_indices"], indices["image_interp_weights"] = get_vision_interpolation_indices_and_weights(
            grids,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
    if "flash" in (visual.config._attn_implementation or ""):
        indices |= borders
        borders = {}
    return {**borders, **{name: to_device(values, device) for name, values in indices.items()}}
