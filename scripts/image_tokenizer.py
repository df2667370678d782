"""Training of a small Janus's image tokenizer (VQ) on images of its world; used by the scripts that make checkpoints.

A plain autoencoder first, then k-means codes on the unit sphere, trained with the codes in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

Pixels = Callable[[int, int], Tensor]
"""(first row, rows) -> images `[N, 3, H, W]` in [-1, 1]; rows from 10,000,000 on initialise the codes."""

MIN_DISTANCE = 0.05
"""Cosine distance from which two latents get separate codes."""


def train_image_tokenizer(
    model: JanusForConditionalGeneration,
    pixels_of: Pixels,
    steps: int,
    *,
    rows: int = 8,
    patch_weight: float = 1.0,
    levels: float = 255.0,
    bfloat16: bool = False,
) -> None:
    """An autoencoder for a quarter of the steps, then codes initialised by k-means and updated by moving averages.

    A step uses `rows` rows. `patch_weight` is the weight of the patch loss, which tells `levels` values of a pixel from
    each other. `bfloat16` computes the networks under autocast.
    """
    vq = model.model.vqmodel
    codes, plain_steps = vq.quantize.embedding.weight.data, steps // 4
    optimizer = torch.optim.AdamW(vq.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * (1 - s / steps) ** 0.5)
    usage, sums = torch.ones(len(codes)), codes.clone()
    for step in range(steps):
        pixels = pixels_of(step * rows, rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            latents = F.normalize(vq.quant_conv(vq.encoder(pixels)).float(), dim=1)
        if step < plain_steps:
            quantised, commitment = latents, torch.zeros(())
        else:
            if step == plain_steps:
                _init_codes(vq, pixels_of, codes)
                sums.copy_(codes)
            flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
            nearest = (flat @ codes.T).argmax(1)
            chosen = codes[nearest].view(*latents.shape[:1], *latents.shape[2:], -1).permute(0, 3, 1, 2)
            commitment = F.mse_loss(latents, chosen)
            quantised = latents + (chosen - latents).detach()
            _update_codes(codes, usage, sums, nearest, flat.detach())
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            decoded = vq.decoder(vq.post_quant_conv(quantised)).float()
        reconstruction = F.mse_loss(decoded, pixels)
        loss = reconstruction + 0.25 * commitment + patch_weight * _patch_loss(latents, pixels, levels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vq.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"image tokenizer {step:5d}  loss {loss.item():.5f} pixels {reconstruction.item():.5f}", flush=True)


def _patch_loss(latents: Tensor, pixels: Tensor, levels: float) -> Tensor:
    """Equal latents for equal patches, different ones for different patches (alignment and uniformity, 2005.10242).

    Attention and group norms make a patch's latent depend on the whole image. Without this term empty patches alone use
    dozens of codes, 2.6 nats per token without information that the language model would have to predict.
    """
    side = pixels.shape[-1] // latents.shape[-1]
    patches = F.unfold(pixels.mul(levels / 2).round(), side, stride=side).transpose(1, 2).flatten(0, 1)
    _, kind = torch.unique(patches, dim=0, return_inverse=True)
    flat = latents.flatten(2).transpose(1, 2).flatten(0, 1)
    counts = torch.bincount(kind).float().unsqueeze(1)
    means = torch.zeros(len(counts), flat.shape[1]).index_add(0, kind, flat) / counts
    alignment = (flat - means[kind]).square().sum(1).mean()
    distances = torch.pdist(F.normalize(means, dim=1)).square()
    return alignment + 0.05 * distances.mul(-4).exp().mean().log()


@torch.no_grad()
def _init_codes(vq: nn.Module, pixels_of: Pixels, codes: Tensor) -> None:
    """k-means++ seeds, one per distinct latent (unused codes stay random), then ten rounds of spherical k-means."""
    pixels = pixels_of(10_000_000, 200)
    flat = F.normalize(vq.quant_conv(vq.encoder(pixels)), dim=1).permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    centres = flat[torch.randint(len(flat), (1,))]
    distance = 1 - (flat @ centres.T).squeeze(1)
    while len(centres) < len(codes) and distance.max() > MIN_DISTANCE:
        pick = flat[torch.multinomial(distance.clamp(min=0) ** 2 + 1e-12, 1)]
        centres = torch.cat([centres, pick])
        distance = torch.minimum(distance, 1 - (flat @ pick.T).squeeze(1))
    for _ in range(10):
        nearest = (flat @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, flat)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
    print(f"image tokenizer: {len(centres)} of {len(codes)} codes in use", flush=True)
    codes[: len(centres)] = centres
    codes[len(centres) :] = F.normalize(torch.randn_like(codes[len(centres) :]), dim=1)


@torch.no_grad()
def _update_codes(
    codes: Tensor, usage: Tensor, sums: Tensor, nearest: Tensor, flat: Tensor, decay: float = 0.99
) -> None:
    """Update codes by moving averages; a latent far from every code replaces the least used one."""
    counts = torch.bincount(nearest, minlength=len(codes)).float()
    usage.mul_(decay).add_(counts, alpha=1 - decay)
    sums.mul_(decay).add_(torch.zeros_like(sums).index_add_(0, nearest, flat), alpha=1 - decay)
    used = sums.norm(dim=1) > 1e-3
    codes[used] = F.normalize(sums[used], dim=1)
    distance = 1 - (flat * codes[nearest]).sum(1)
    if distance.max() > MIN_DISTANCE:
        least = usage.argmin()
        codes[least] = sums[least] = flat[distance.argmax()]
        usage[least] = usage.mean()


@torch.no_grad()
def retire_duplicate_codes(model: JanusForConditionalGeneration, pixels_of: Pixels) -> int:
    """Retire duplicate codes, between which the choice is random; returns how many.

    A code is a duplicate if a more frequent one is within MIN_DISTANCE. Retired codes move away from all latents.
    """
    vq = model.model.vqmodel
    codes = vq.quantize.embedding.weight.data
    pixels = pixels_of(10_000_000, 200)
    flat = F.normalize(vq.quant_conv(vq.encoder(pixels)), dim=1).permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    usage = torch.bincount((flat @ codes.T).argmax(1), minlength=len(codes))
    kept: list[int] = []
    retired = []
    for code in usage.argsort(descending=True).tolist():
        duplicate = bool(kept) and float((codes[kept] @ codes[code]).max()) > 1 - MIN_DISTANCE
        (retired if duplicate or usage[code] == 0 else kept).append(code)
    candidates = F.normalize(torch.randn(4096, codes.shape[1]), dim=1)
    farthest = (candidates @ codes[kept].T).max(1).values.argsort()
    codes[retired] = candidates[farthest[: len(retired)]]
    return len(retired)
