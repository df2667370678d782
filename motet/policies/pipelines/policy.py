"""A diffusers pipeline as a policy: it draws by denoising, and its transformer learns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from motet.config import LoraConfig
from motet.conversation import Conversation
from motet.errors import ConfigError
from motet.policies.denoisers import Condition, denoiser_of
from motet.policies.denoisers.common import DiffusersDenoiser
from motet.policies.denoisers.conditions import moved
from motet.policies.denoisers.lora import ATTENTION, add_adapters, has_adapters
from motet.policies.denoisers.open import EDITING
from motet.policies.flow import Branches, branches_of, demonstrated, paint, rescore
from motet.policies.lora import is_identity
from motet.policies.parts import Reference, choose_parts
from motet.policies.pipelines.prompts import check_pipeline, encode_prompt, encode_sources, pictures_of, prompt_of
from motet.policies.pipelines.saving import save_pipeline
from motet.protocols import Replay, Request
from motet.trajectory import Act, ActKind, DenoisingSteps, Sampling


@dataclass(frozen=True, eq=False)
class DrawingEncoding:
    """What a drawing was conditioned on, on the CPU: kept with the act, so that replay runs no text encoder.

    `null` has neither prompt nor sources, `picture_only` the sources alone; both None without guidance, and
    `picture_only` without sources.
    """

    conditional: Condition
    null: Condition | None = None
    picture_only: Condition | None = None


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
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self.height, self.width = height or _own_side(pipeline), width or _own_side(pipeline)
        self.shape = self.denoiser.latent_shape(self.height, self.width)
        self.autocast, self.rollout_batch, self.folder = autocast, rollout_batch, folder
        self.version = 0
        self._reference: Reference | None = None

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Draw for every request, in order. A prompt or source that several share is encoded once."""
        if not requests:
            return []
        if {request.kind for request in requests} != self.kinds:
            raise ValueError("A pipeline performs acts of kind 'denoising' alone.")
        guided = sampling.guidance != "none"
        if guided and self.pipeline.config.get("is_distilled", False):
            raise ConfigError(
                f"denoising.guidance={sampling.guidance}: this {type(self.pipeline).__name__} is distilled, and knows "
                "no null prompt.",
                fix="use denoising.guidance: none.",
            )
        encodings = self._encode([request.context for request in requests], guided)
        size = self.rollout_batch or len(requests)
        return [
            act
            for n in range(0, len(requests), size)
            for act in self._draw(requests[n : n + size], encodings[n : n + size], sampling)
        ]

    def _draw(self, requests: Sequence[Request], encodings: Sequence[DrawingEncoding], sampling: Sampling) -> list[Act]:
        """Requests that are drawn as one batch."""
        times = self.denoiser.schedule(sampling.num_steps, self.shape, sampling.shift)
        branches = self._branches(encodings, [sampling] * len(requests))
        keys = [request.key for request in requests]
        painted = paint(self._velocity, branches, keys, self.shape, times.to(self.device), sampling)
        behaviour = painted.behaviour_log_probs
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
            for n, (request, encoding, picture) in enumerate(
                zip(requests, encodings, self.denoiser.decode(painted.clean), strict=True)
            )
        ]

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transcribe(self, requests: Sequence[Request], targets: Sequence[Image.Image]) -> list[Act]:
        """Acts that demonstrate pictures, each one noisy state of it; a blank request has the null condition."""
        if not requests:
            return []
        clean = self.denoiser.encode(targets, self.height, self.width)
        shown = demonstrated(clean, [request.key for request in requests])
        encodings = self._encode([request.context for request in requests], any(r.blank for r in requests))
        acts: list[Act] = []
        for request, target, encoding, (states, times) in zip(requests, targets, encodings, shown, strict=True):
            seen = encoding.null if request.blank and encoding.null is not None else encoding.conditional
            acts.append(
                DenoisingSteps(
                    name=request.name,
                    context=request.context,
                    encoding=DrawingEncoding(seen),
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
        branches = self._branches([act.encoding for act in drawn], [act.sampling for act in drawn])
        return rescore(self._velocity, drawn, branches, self.device, needs)

    def cost(self, act: Act) -> int:
        """Tokens that replaying the act costs: those of its picture, sources and prompt, for every branch and step."""
        assert isinstance(act, DenoisingSteps)
        encoding: DrawingEncoding = act.encoding
        (own,) = self._branches([encoding], [act.sampling], near=False)
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

    # ---- conditions -------------------------------------------------------------------------------------------------

    def _encode(self, contexts: Sequence[Conversation], guided: bool) -> list[DrawingEncoding]:
        """What each context conditions on; prompts, sources and whole contexts that recur are encoded once."""
        texts: dict[str, Condition] = {}
        known: dict[int, tuple[Tensor, ...]] = {}
        made: dict[int, DrawingEncoding] = {}
        null = encode_prompt(self.pipeline, "", null=True) if guided else None
        for context in contexts:
            if id(context) in made:
                continue
            prompt = prompt_of(context)
            if prompt not in texts:
                texts[prompt] = encode_prompt(self.pipeline, prompt)
            pictures = pictures_of(context)
            for picture in pictures:
                if id(picture) not in known:
                    known[id(picture)] = encode_sources(self.denoiser, [picture], self.height, self.width)
            sources = tuple(source for picture in pictures for source in known[id(picture)])
            picture_only = replace(null, sources=sources) if null is not None and sources else None
            made[id(context)] = DrawingEncoding(replace(texts[prompt], sources=sources), null, picture_only)
        return [made[id(context)] for context in contexts]

    def _branches(
        self, encodings: Sequence[DrawingEncoding], samplings: Sequence[Sampling], near: bool = True
    ) -> list[Branches]:
        """The acts' branches, `near` the transformer: what several acts share is moved there once."""
        weight = next(self.denoiser.transformer.parameters())
        there: dict[int, Condition] = {}

        def placed(condition: Condition | None) -> Condition | None:
            if condition is None or not near:
                return condition
            if id(condition) not in there:
                there[id(condition)] = moved(condition, weight)
            return there[id(condition)]

        return [
            branches_of(
                sampling,
                placed(encoding.conditional),
                placed(encoding.null),
                placed(encoding.picture_only),
                self.denoiser.rescale,
            )
            for encoding, sampling in zip(encodings, samplings, strict=True)
        ]

    def _velocity(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        context = nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)
        with context:
            return self.denoiser.velocity(x, sigma, conditions)


@contextmanager
def _adapters_off(transformer: Any) -> Iterator[None]:
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()


def _own_side(pipeline: Any) -> int:
    """Pixels of the square pictures that the checkpoint was made for."""
    cells = getattr(pipeline, "default_sample_size", None) or pipeline.transformer.config.sample_size
    return int(cells) * int(pipeline.vae_scale_factor)
