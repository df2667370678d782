"""A diffusers pipeline as a policy: it draws by denoising, and its transformer learns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from motet.config import LoraConfig
from motet.errors import ConfigError
from motet.policies.denoisers import Condition, denoiser_of
from motet.policies.denoisers.common import DiffusersDenoiser
from motet.policies.denoisers.lora import ATTENTION, add_adapters, has_adapters
from motet.policies.denoisers.open import EDITING
from motet.policies.flow import branches_of, demonstrated, paint, rescore
from motet.policies.lora import is_identity
from motet.policies.parts import Reference, choose_parts
from motet.policies.pipelines.encoding import DrawingEncoder, DrawingEncoding, branches_near
from motet.policies.pipelines.prompts import check_pipeline
from motet.policies.pipelines.saving import save_pipeline
from motet.protocols import Replay, Request
from motet.trajectory import Act, ActKind, DenoisingSteps, Sampling


class PipelinePolicy:
    """A text-to-picture or editing pipeline that acts. Implements `motet.protocols.LearningPolicy`.

    The prompt of a drawing is the text of its context's last user turn; pictures in the context are what it edits.
    `height` and `width` are those of drawings, by default the checkpoint's own. `autocast` is the compute type of the
    transformer; None computes in the weights' own. `rollout_batch` pictures are drawn at once; None: all.
    `folder` holds the files that the pipeline was loaded from: components that never change are copied from there.
    """

    kinds: frozenset[ActKind] = frozenset({"denoising"})

    def __init__(
        self,
        pipeline: Any,
        denoiser: DiffusersDenoiser | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
        folder: Path | None = None,
    ) -> None:
        name = type(pipeline).__name__
        check_pipeline(name, str(folder or name))
        self.pipeline = pipeline
        self.denoiser = denoiser or denoiser_of(
            pipeline.transformer, pipeline.vae, pipeline.scheduler, edits=name in EDITING
        )
        _freeze(pipeline)
        self.height, self.width = height or _own_side(pipeline), width or _own_side(pipeline)
        self.shape = self.denoiser.latent_shape(self.height, self.width)
        self.encoder = DrawingEncoder(pipeline, self.denoiser, self.height, self.width)
        self.autocast, self.rollout_batch, self.folder = autocast, rollout_batch, folder
        self.version = 0
        self._reference: Reference | None = None

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Draw for every request, in order. A prompt or source that several share is encoded once."""
        if any(request.kind not in self.kinds for request in requests):
            raise ValueError("A pipeline performs acts of kind 'denoising' alone.")
        guided = sampling.guidance != "none"
        if guided and self.pipeline.config.get("is_distilled", False):
            raise ConfigError(
                f"denoising.guidance={sampling.guidance}: this {type(self.pipeline).__name__} is distilled, and knows "
                "no null prompt.",
                fix="use denoising.guidance: none.",
            )
        encodings = self.encoder.encode([request.context for request in requests], guided)
        size = self.rollout_batch or len(requests) or 1
        return [
            act
            for n in range(0, len(requests), size)
            for act in self._draw(requests[n : n + size], encodings[n : n + size], sampling)
        ]

    def _draw(self, requests: Sequence[Request], encodings: Sequence[DrawingEncoding], sampling: Sampling) -> list[Act]:
        """Requests that are drawn as one batch."""
        times = self.denoiser.schedule(sampling.num_steps, self.shape, sampling.shift)
        branches = branches_near(self.denoiser, encodings, [sampling] * len(requests))
        keys = [request.key for request in requests]
        painted = paint(self._velocity, branches, keys, self.shape, times.to(self.device), sampling)
        behaviour, pictures = painted.behaviour_log_probs, self.denoiser.decode(painted.clean)
        return [
            DenoisingSteps(
                name=request.name,
                context=request.context,
                encoding=encoding,
                sampling=sampling,
                log_probs=painted.log_probs[n].clone(),
                behaviour_log_probs=None if behaviour is None else behaviour[n].clone(),
                trained=request.trained,
                policy_version=self.version,
                states=painted.states[n].clone(),
                times=times,
                stochastic=painted.stochastic,
                image=picture,
            )
            for n, (request, encoding, picture) in enumerate(zip(requests, encodings, pictures, strict=True))
        ]

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transcribe(self, requests: Sequence[Request], targets: Sequence[Image.Image]) -> list[Act]:
        """Acts that demonstrate pictures, each one noisy state of it; a blank request has the condition of a branch."""
        if not requests:
            return []
        clean = self.denoiser.encode(targets, self.height, self.width)
        shown = demonstrated(clean, [request.key for request in requests])
        encodings = self.encoder.encode([r.context for r in requests], any(r.blank for r in requests))
        acts: list[Act] = []
        for request, target, encoding, (states, times) in zip(requests, targets, encodings, shown, strict=True):
            acts.append(
                DenoisingSteps(
                    name=request.name,
                    context=request.context,
                    encoding=DrawingEncoding(encoding.shown(request.blank, request.blank_source)),
                    sampling=Sampling(),
                    log_probs=None,
                    trained=request.trained,
                    states=states,
                    times=times,
                    stochastic=(True,),
                    image=target.convert("RGB"),
                )
            )
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' stochastic steps under the current weights, with gradient; one batch.

        Offers what `motet.policies.flow.rescore` offers.
        """
        drawn = [act for act in acts if isinstance(act, DenoisingSteps)]
        if len(drawn) != len(acts):
            raise ValueError("A pipeline replays acts of kind 'denoising' alone.")
        if not acts:
            return []
        branches = branches_near(self.denoiser, [act.encoding for act in drawn], [act.sampling for act in drawn])
        return rescore(self._velocity, drawn, branches, self.device, needs)

    def cost(self, act: Act) -> int:
        """Tokens that replaying the act costs: those of its picture, sources and prompt, for every branch and step."""
        assert isinstance(act, DenoisingSteps)
        encoding: DrawingEncoding = act.encoding
        own = branches_of(act.sampling, encoding.conditional, encoding.null, encoding.picture_only)
        drawing = self.denoiser.tokens(act.states.shape[1:])
        return act.num_actions * sum(
            drawing + len(c.embeddings) + sum(self.denoiser.tokens(source.shape) for source in c.sources)
            for c in own.scoring.conditions
        )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return dict(self.denoiser.parts)

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen."""
        if has_adapters(self.denoiser.transformer):
            raise ConfigError("Adapters train already.", fix="choose policy.train or policy.lora, not both.")
        choose_parts(self.parts, names)
        if self.autocast is None:
            self.denoiser.transformer.float()  # what trains is float32, and without autocast all must be of one type

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on linear layers of the transformer instead of its weights.

        The default `target_modules`, which are a language model's, mean the transformer's attention.
        """
        chosen = config.target_modules
        if chosen == LoraConfig.model_fields["target_modules"].default:
            chosen = ATTENTION
        add_adapters(self.denoiser.transformer, rank=config.rank, alpha=config.alpha, target_modules=chosen)

    def recompute_activations(self) -> None:
        """Let the backward pass compute the transformer's layers again instead of keeping their activations."""
        self.denoiser.transformer.enable_gradient_checkpointing()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {
            f"{part}.{name}": parameter
            for part, module in self.parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL; fresh adapters are switched off instead."""
        transformer = self.denoiser.transformer
        fresh = has_adapters(transformer) and is_identity(transformer)
        self._reference = None if fresh else Reference(self.trainable())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        transformer = self.denoiser.transformer
        if self._reference is None and not has_adapters(transformer):
            raise RuntimeError("freeze_reference() was never called")
        with _adapters_off(transformer) if self._reference is None else self._reference.active(), torch.no_grad():
            yield

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.denoiser.device

    def save(self, folder: Path) -> None:
        """A complete pipeline folder that diffusers and `open_pipeline` load; see `save_pipeline`."""
        save_pipeline(Path(folder), self.pipeline, self.denoiser, self.folder)

    def _velocity(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        with nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast):
            return self.denoiser.velocity(x, sigma, conditions)


@contextmanager
def _adapters_off(transformer: Any) -> Iterator[None]:
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()


def _freeze(pipeline: Any) -> None:
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()


def _own_side(pipeline: Any) -> int:
    """Pixels of the square pictures that the checkpoint was made for."""
    cells = getattr(pipeline, "default_sample_size", None) or pipeline.transformer.config.sample_size
    return int(cells) * int(pipeline.vae_scale_factor)
