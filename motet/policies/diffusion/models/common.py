"""What the denoisers of all classes share: batches of unlike conditions, the autoencoder, the schedule, saving.

A class says how its transformer is called (`_forward`) and how its autoencoder's latents are scaled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from motet.core.errors import CheckpointError, ConfigError
from motet.core.write_errors import write_error
from motet.numerics.transfers import index_on, to_device
from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.conditions import check_condition, drop_masked, to_device_dtype
from motet.policies.diffusion.models.image_tensors import to_pil_images, to_pixels
from motet.policies.diffusion.models.lora import without_adapters
from motet.policies.diffusion.models.schedule import check_scheduler, checkpoint_sigmas, resolution_mu
from motet.policies.same_passes import from_all_processes


class DiffusersDenoiser:
    """A transformer of diffusers as a `Denoiser`; its subclasses are the families.

    Everything is frozen until a policy lets parts train. `edits`: its conditions may hold sources.
    `embedded_guidance` is the guidance scale that distilled checkpoints take as an input; None: their pipeline's own.
    """

    transformer_class: ClassVar[str]
    linear_grid: ClassVar[bool] = True
    default_guidance: ClassVar[float] = 3.5
    can_edit: ClassVar[bool] = False
    any_source_size: ClassVar[bool] = True
    """Whether a source may have another size than the generated image."""
    masks: ClassVar[bool] = False
    """Whether the transformer takes a mask of its text tokens."""
    rescale: Any = None

    def __init__(
        self, transformer: Any, vae: Any, scheduler: Any, *, edits: bool = False, embedded_guidance: float | None = None
    ) -> None:
        check_scheduler(scheduler)
        self.transformer, self.vae, self.scheduler = transformer, vae, scheduler
        self.edits = edits and self.can_edit
        self.embedded_guidance = _embedded_guidance(self, embedded_guidance)
        self.config = transformer.config
        for part in (transformer, vae):
            if part is not None:
                part.requires_grad_(False).eval()
        if vae is None and self.latent_channels != 3:
            raise CheckpointError(
                f"There is no vae/, so latents are RGB pixels, but the {self.transformer_class} has "
                f"{self.latent_channels} channels.",
                fix="add the checkpoint's vae folder.",
            )

    # ---- what a class says of itself --------------------------------------------------------------------------------

    @property
    def latent_channels(self) -> int:
        """C of a latent."""
        return int(self.config.in_channels)

    @property
    def patch(self) -> int:
        """Side of the square of latent cells that is one token."""
        return int(self.config.patch_size)

    @property
    def compression(self) -> int:
        """Side of the square of pixels that is one latent cell."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def condition_width(self) -> int:
        """D of a condition's embeddings."""
        return int(self.config.joint_attention_dim)

    @property
    def pooled_width(self) -> int | None:
        """E of a condition's pooled vector."""
        return None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What may train, by name."""
        return {"transformer": self.transformer}

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """The transformer's output for rows that `_batch_key` calls alike."""
        raise NotImplementedError

    def _batch_key(self, condition: Condition) -> Hashable:
        """Rows with equal values share a forward pass: here those of equal shapes, as no padding is masked."""
        return (*condition.embeddings.shape, *(source.shape for source in condition.sources))

    def _to_latents(self, pixels: Tensor) -> Tensor:
        config = self.vae.config
        return (self.vae.encode(pixels).latent_dist.mode() - (config.shift_factor or 0.0)) * config.scaling_factor

    def _to_pixels(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0.0), return_dict=False)[0]

    def _mu(self, num_steps: int, num_tokens: int) -> float:
        """The dynamic shift of the class's pipeline."""
        return resolution_mu(self.scheduler, num_tokens)

    # ---- the protocol -----------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.transformer.parameters()).device

    @property
    def multiple(self) -> int:
        """Heights and widths of images are multiples of this many pixels."""
        return self.compression * self.patch

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """`(C, H, W)` of the latent of an image. Raises ConfigError for a size that is not a multiple of `multiple`."""
        for name, pixels in (("height", height), ("width", width)):
            if pixels < 1 or pixels % self.multiple:
                raise ConfigError(
                    f"{name}={pixels} does not fit the {self.transformer_class}: sizes must be multiples of "
                    f"{self.multiple} pixels.",
                    fix=f"use {name}={max(self.multiple, pixels // self.multiple * self.multiple)}.",
                )
        return (self.latent_channels, height // self.compression, width // self.compression)

    def tokens(self, shape: Sequence[int]) -> int:
        """Transformer tokens of a latent of this shape."""
        return shape[-2] // self.patch * (shape[-1] // self.patch)

    def schedule(self, num_steps: int, shape: Sequence[int], shift: float | None = None) -> Float[Tensor, "S1"]:
        """Sigmas from 1 to 0 for a latent of a shape, float32 on the CPU; see
        `motet.policies.diffusion.models.schedule`.
        """
        mu = self._mu(num_steps, self.tokens(shape))
        return checkpoint_sigmas(self.scheduler, num_steps, mu=mu, linear_grid=self.linear_grid, shift=shift)

    def velocity(
        self, x: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"], conditions: Sequence[Condition]
    ) -> Float[Tensor, "B *D"]:
        """The velocity at each latent under its condition, whatever else is in the batch.

        Rows whose lengths and sources the class cannot pad and mask are forwarded in groups of equal shapes.
        """
        weight = next(self.transformer.parameters())
        ready = [self._prepare_condition(condition, weight) for condition in conditions]
        groups: dict[Hashable, list[int]] = {}
        for row, condition in enumerate(ready):
            groups.setdefault(self._batch_key(condition), []).append(row)
        x, sigma = x.to(weight), sigma.to(weight.device, torch.float32)
        missing = max(from_all_processes(len(groups))) - len(groups)
        if len(groups) == 1 and not missing:
            return self._forward(x, sigma, ready)
        each = [(index_on(weight.device, rows), [ready[n] for n in rows]) for rows in groups.values()]
        outputs = [self._forward(x[rows], sigma[rows], own) for rows, own in each]
        for _ in range(missing):  # passes that another process needs: of the first row, without weight
            outputs[0] = outputs[0] + 0.0 * self._forward(x[:1], sigma[:1], ready[:1]).sum()
        return torch.cat(outputs)[torch.cat([rows for rows, _ in each]).argsort()]

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image], height: int, width: int) -> Float[Tensor, "B *D"]:
        """Images as float32 latents where the transformer is: the posterior's mode, shifted and scaled."""
        self.latent_shape(height, width)
        pixels = to_device(to_pixels(images, height, width), self.device)
        if self.vae is None:
            return pixels
        return self._to_latents(pixels.to(next(self.vae.parameters()))).float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B *D"]) -> list[Image.Image]:
        """Latents as RGB images: decoded once to uint8."""
        if self.vae is None:
            return to_pil_images(latents)
        return to_pil_images(self._to_pixels(latents.to(next(self.vae.parameters()))))

    def save_adapter(self, folder: Path) -> None:
        """Write what stands beside the transformer, if there is anything."""

    def save(self, folder: Path) -> None:
        """`transformer/`, `vae/` and `scheduler/` as diffusers loads them; adapters are merged into the weights.

        Raises CheckpointError when they cannot be written.
        """
        folder = Path(folder)
        try:
            without_adapters(self.transformer).save_pretrained(folder / "transformer")
            if self.vae is not None:
                self.vae.save_pretrained(folder / "vae")
            self.scheduler.save_pretrained(folder / "scheduler")
            self.save_adapter(folder)
            _strip_local_paths(folder / "transformer", folder / "vae")
            for file in folder.rglob("*.safetensors"):  # safetensors writes for the owner only
                shutil.copymode(folder / "transformer" / "config.json", file)
        except OSError as error:
            raise write_error(CheckpointError, repr(str(folder)), error) from error

    # ---- conditions -------------------------------------------------------------------------------------------------

    def _prepare_condition(self, condition: Condition, weight: Tensor) -> Condition:
        """The condition where and as the transformer computes.

        Classes without a mask give text tokens positions at most by order, so what is masked is left out instead.
        """
        check_condition(condition, self.transformer_class, edits=self.edits, takes_pooled=self.pooled_width is not None)
        return to_device_dtype(condition if self.masks else drop_masked(condition), weight)

    def _guidance_of(self, sigma: Tensor) -> Tensor | None:
        """The embedded guidance of every row, None where the checkpoint takes none."""
        return None if self.embedded_guidance is None else torch.full_like(sigma, self.embedded_guidance)

    def _timestep(self, sigma: Tensor) -> Tensor:
        """Sigmas as the training timesteps that transformers know: from 1000 to 0."""
        return sigma * self.scheduler.config.num_train_timesteps


def _embedded_guidance(denoiser: DiffusersDenoiser, asked: float | None) -> float | None:
    """The guidance that a distilled checkpoint takes as an input; None for all others. Raises ConfigError for those."""
    embeds = bool(denoiser.transformer.config.get("guidance_embeds", False))
    if asked is not None and not embeds:
        raise ConfigError(
            f"embedded_guidance={asked}: this {denoiser.transformer_class} takes no guidance as an input.",
            fix="remove it, and guide with two branches (sampling.denoising.guidance).",
        )
    return (denoiser.default_guidance if asked is None else asked) if embeds else None


def _strip_local_paths(*folders: Path) -> None:
    """Take out of each config where its weights were loaded from: a path of one machine."""
    for config in (folder / "config.json" for folder in folders):
        if config.is_file():
            said = json.loads(config.read_text(encoding="utf-8"))
            said.pop("_name_or_path", None)
            config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
