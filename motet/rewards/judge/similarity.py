"""Similarity of two sets of vectors by greedy matching of each vector to the best one of the other set."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def greedy_matches(
    first: Float[Tensor, "B N D"],
    second: Float[Tensor, "B T D"],
    first_mask: Bool[Tensor, "B N"],
    second_mask: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Mean over the first set of the best cosine in the second, and mean over the second of the best in the first.

    Where a mask is False there is no vector: it is neither counted nor matched. In [-1, 1]; both are 0 where a set is
    empty. Computed in float32.
    """
    if not first.shape[1] or not second.shape[1]:
        return first.new_zeros(len(first), dtype=torch.float32), first.new_zeros(len(first), dtype=torch.float32)
    a, b = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    cosines = a @ b.transpose(1, 2)
    pairs = first_mask.unsqueeze(2) & second_mask.unsqueeze(1)
    cosines = cosines.masked_fill(~pairs, -torch.inf)
    return _mean_of_best(cosines, first_mask, second_mask), _mean_of_best(
        cosines.transpose(1, 2), second_mask, first_mask
    )


def token_matching(
    image: Float[Tensor, "B N D"],
    text: Float[Tensor, "B T D"],
    image_mask: Bool[Tensor, "B N"],
    text_mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B"]:
    """CoRL's token-level text-image matching (R_TIM of arXiv 2505.17534), in [-1, 1].

    `0.5 * (mean over image tokens of max over text tokens cos + mean over text tokens of max over image tokens cos)`.
    """
    of_image, of_text = greedy_matches(image, text, image_mask, text_mask)
    return 0.5 * (of_image + of_text)


def greedy_f1(
    candidate: Float[Tensor, "B N D"],
    reference: Float[Tensor, "B T D"],
    candidate_mask: Bool[Tensor, "B N"],
    reference_mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B"]:
    """BERTScore's F1 (Zhang et al. 2020, arXiv 1904.09675, section 3): `2 P R / (P + R)`, without idf or rescaling.

    `P` is the mean over candidate tokens of the best cosine, `R` that over reference tokens. 0 where `P + R` is not
    positive, where the formula has no meaning.
    """
    precision, recall = greedy_matches(candidate, reference, candidate_mask, reference_mask)
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total.clamp(min=1e-12), torch.zeros_like(total))


def _mean_of_best(
    cosines: Float[Tensor, "B N T"], mask: Bool[Tensor, "B N"], partners: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    counted = mask & partners.any(dim=1, keepdim=True)
    best = cosines.amax(dim=2).masked_fill(~counted, 0.0)
    return best.sum(dim=1) / counted.sum(dim=1).clamp(min=1)
