"""Open a checkpoint: which class it is, on which device, with which parts trainable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import JanusConfig

from motet.config import DiffusionConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError
from motet.core.protocols import TrainablePolicy
from motet.core.registry import Registry, first_line, is_object_path, registry
from motet.policies.composite import (
    EXPERTS_MODEL_TYPE,
    LANGUAGE,
    PIPELINE,
    CompositePolicy,
    LanguageModelPlusPipeline,
)
from motet.policies.emu3 import Emu3Policy
from motet.policies.emu3.policy import open_emu3
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.janus import JanusPolicy
from motet.policies.janus.checkpoint import open_janus
from motet.policies.liger_choice import describe_liger
from motet.policies.lora import attach, base_model_of
from motet.policies.meta_loading import loads_without_weights
from motet.policies.precision import choose_compute_types, width_of
from motet.policies.python_policy import python_policy
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.qwen_vl.checkpoint import FAMILIES, open_vlm
from motet.policies.trainable import LoadedPolicy
from motet.weights.hf_output import suppress_hf_output
from motet.weights.hub import missing_reason
from motet.weights.locate import resolve_checkpoint

if TYPE_CHECKING:  # diffusers is an extra
    from motet.policies.diffusion.pipeline.policy import PipelinePolicy
    from motet.policies.unified import UnifiedPolicy

    Loaded = LoadedPolicy
else:
    Loaded = TrainablePolicy  # all that is asked of a plug-in's policy; motet's own have more


def load_policy(path: str | Path, config: PolicyConfig | None = None) -> Loaded:
    """Load a checkpoint folder, a run folder (its newest checkpoint), a hub id, or a LoRA adapter folder.

    Its config.json says which policy it is: Janus, Emu3, Qwen2.5-VL and Qwen3-VL in the transformers layout, diffusers
    pipelines (as `policy.diffusion` beside a language model, or alone), and motet's unified models around a Janus or a
    Qwen-VL. With a `config`, its device, precision and trainable parts apply; without one the policy is ready to sample
    and trains the default parts. Raises CheckpointError for a missing, broken or unsupported checkpoint,
    ConfigError for settings that it has no use for.
    """
    if is_object_path(str(path)):
        return cast(LoadedPolicy, python_policy(str(path), config))  # it has what its author gave it
    settings = config or PolicyConfig(path=str(path))
    opened = LoadSpec.at(resolve_checkpoint(path), settings)
    settings = opened.settings
    model_type = _model_type(opened)
    if model_type not in _OPENERS:  # a plug-in's, whose opener applies the settings itself
        return POLICIES.find(model_type)(opened)
    policy = _OPENERS[model_type](opened)
    _check_settings_apply(settings, policy, model_type)
    if config is None:  # the default parts are a language model's: a pipeline has none of them
        settings = settings.model_copy(update={"train": tuple(name for name in settings.train if name in policy.parts)})
    _select_trainable(policy, settings)
    if settings.gradient_checkpointing:
        policy.enable_gradient_checkpointing()
    return policy


def _check_settings_apply(settings: PolicyConfig, policy: LoadedPolicy, model_type: str) -> None:
    """Raise ConfigError for settings of a language model, of a pipeline or of a Qwen-VL where there is none."""
    diffusion, (text_policy, _) = settings.diffusion, _members(policy)
    if settings.lora is not None and "text" not in policy.kinds:
        raise ConfigError(
            f"policy.lora: a {model_type!r} model has no language model that trains.",
            fix="write policy.diffusion.lora: an adapter on the diffusion transformer.",
        )
    if settings.max_pixels is not None and not isinstance(text_policy, VlmPolicy):
        raise ConfigError(
            f"policy.max_pixels={settings.max_pixels} applies to Qwen-VL models only; this is a {model_type!r} model.",
            fix="remove it.",
        )
    if diffusion is not None and diffusion.path is not None and model_type not in FAMILIES:
        raise ConfigError(
            f"policy.diffusion.path={diffusion.path!r}: a {model_type!r} model takes no pipeline beside it.",
            fix="remove policy.diffusion.path, or set policy.path to a Qwen2.5-VL or Qwen3-VL.",
        )
    if diffusion is not None and "denoising" not in policy.kinds:
        raise ConfigError(
            f"policy.diffusion: a {model_type!r} model alone has no diffusion transformer.",
            fix="remove policy.diffusion, or set policy.diffusion.path to a pipeline.",
        )


def _members(policy: LoadedPolicy) -> tuple[LoadedPolicy, LoadedPolicy]:
    """The policies that generate text and images: the policy itself, where it is not a composite."""
    return policy.members if isinstance(policy, CompositePolicy) else (policy, policy)


def _select_trainable(policy: LoadedPolicy, settings: PolicyConfig) -> None:
    """Put new adapters on the language model and the diffusion transformer, and choose the components that train."""
    text_policy, image_policy = _members(policy)
    if settings.diffusion is not None and settings.diffusion.lora is not None:
        image_policy.add_lora(settings.diffusion.lora)
    if settings.lora is not None and not text_policy.has_lora:  # or it was loaded with the checkpoint
        text_policy.add_lora(settings.lora)
    use_adapter_only = text_policy.has_lora and settings.train == _DEFAULT_TRAIN_PARTS
    policy.train_parts(() if use_adapter_only else settings.train)


_DEFAULT_TRAIN_PARTS = PolicyConfig.model_fields["train"].default
"""The default of `policy.train`: a language model's weights."""


@dataclass(frozen=True)
class LoadSpec:
    """What an opener is told: where the weights are, and how they are to compute.

    Without autocast the weights' type is the compute type, float32; with it they stay as stored, until they train.
    """

    source: str
    adapter: Path | None
    settings: PolicyConfig
    device: torch.device
    reason: str
    """Why the settings compute in the types that `auto` became; empty where none was `auto`."""

    @classmethod
    def at(cls, path: str | Path, settings: PolicyConfig) -> LoadSpec:
        """Of a checkpoint folder or hub id, or of an adapter folder, whose base model is the source."""
        folder = Path(path)
        adapter = (folder / "adapter_config.json").is_file()
        source = base_model_of(folder) if adapter else str(path)
        device = choose_device(settings.device)
        types = choose_compute_types(settings, device, width_of(source))
        reason = f"{types.reason} {describe_liger(device)}".strip()
        return cls(source, folder if adapter else None, types.applied_to(settings), device, reason)

    @property
    def autocast(self) -> torch.dtype | None:
        """Compute type of learning's forward passes, None: the weights' own."""
        return torch.bfloat16 if self.settings.dtype == "bfloat16" else None

    @property
    def rollout_autocast(self) -> torch.dtype | None:
        """Compute type of sampling tokens, None: the weights' own."""
        return torch.bfloat16 if self.settings.rollout_dtype == "bfloat16" else None

    @property
    def dtype(self) -> torch.dtype | str:
        """The type that weights are loaded in."""
        return torch.float32 if self.autocast is None else "auto"

    def prepare_model(self, model: Any) -> Any:
        """The model on its device, with the adapter attached: to train, unless `policy.train` alone says what does."""
        if not loads_without_weights():
            model.to(self.device)
        if self.device.type == "cpu":  # torch's fused attention is slow backwards on CPUs: half of a training step
            model.set_attn_implementation("eager")
        if self.adapter is None:
            return model
        return attach(
            model, self.adapter, self.settings.lora is not None or self.settings.train == _DEFAULT_TRAIN_PARTS
        )

    @property
    def common(self) -> dict[str, Any]:
        """What every policy takes."""
        return {"autocast": self.autocast, "rollout_batch": self.settings.generation_batch_size}

    @property
    def of_tokens(self) -> dict[str, Any]:
        """What a policy that samples tokens takes."""
        return {**self.common, "rollout_autocast": self.rollout_autocast}

    @property
    def preface(self) -> str:
        """What an error about the source begins with."""
        return "" if self.adapter is None else f"The adapter in {str(self.adapter)!r} needs its base model. "


def _language_model(
    policy: type[LanguageModelPolicy], open_model: Callable[[str, torch.dtype | str], tuple[Any, Any]]
) -> Callable[[LoadSpec], LanguageModelPolicy]:
    """The opener of a family."""

    def opener(opened: LoadSpec) -> LanguageModelPolicy:
        model, processor = open_model(opened.source, opened.dtype)
        return policy(opened.prepare_model(model), processor, **opened.of_tokens)

    return opener


def _vlm(opened: LoadSpec) -> VlmPolicy:
    model, processor = open_vlm(opened.source, opened.dtype, opened.settings.max_pixels)
    return VlmPolicy(opened.prepare_model(model), processor, **opened.of_tokens)


def _vlm_or_with_pipeline(opened: LoadSpec) -> LoadedPolicy:
    text_policy, diffusion = _vlm(opened), opened.settings.diffusion
    if diffusion is None or diffusion.path is None:
        return text_policy
    return LanguageModelPlusPipeline(text_policy, _pipeline_at(diffusion.path, opened))


def _saved_with_pipeline(opened: LoadSpec) -> LanguageModelPlusPipeline:
    folder, plain = Path(opened.source), opened.settings.model_copy(update={"diffusion": None})
    text_policy = _vlm(LoadSpec.at(folder / LANGUAGE, plain))
    return LanguageModelPlusPipeline(text_policy, _pipeline_at(folder / PIPELINE, opened))


def _pipeline(opened: LoadSpec) -> PipelinePolicy:
    return _pipeline_at(opened.source, opened)


def _pipeline_at(source: str | Path, opened: LoadSpec) -> PipelinePolicy:
    from motet.policies.diffusion.pipeline.checkpoint import open_pipeline  # diffusers is an extra

    diffusion = opened.settings.diffusion or DiffusionConfig()
    height, width = diffusion.size or (None, None)
    return open_pipeline(
        resolve_checkpoint(source),
        dtype=opened.dtype,
        device=opened.device,
        embedded_guidance=diffusion.embedded_guidance,
        height=height,
        width=width,
        **opened.common,
    )


def _unified(opened: LoadSpec) -> UnifiedPolicy:
    from motet.policies.unified import UnifiedPolicy
    from motet.policies.unified.checkpoint import open_unified

    folder, plain = Path(opened.source), opened.settings.model_copy(update={"diffusion": None})
    inner = LoadSpec.at(folder / LANGUAGE, plain)
    model_type = _model_type(inner)
    reader = _vlm(inner) if model_type in FAMILIES else _OPENERS[model_type](inner)
    assert isinstance(reader, LanguageModelPolicy)
    diffusion = opened.settings.diffusion or DiffusionConfig()
    whole = open_unified(folder, reader, opened.device, diffusion, opened.dtype)
    return UnifiedPolicy(reader, **whole, **opened.common)


_OPENERS: dict[str, Callable[[LoadSpec], LoadedPolicy]] = {
    "janus": _language_model(JanusPolicy, open_janus),
    "emu3": _language_model(Emu3Policy, open_emu3),
    **dict.fromkeys(FAMILIES, _vlm_or_with_pipeline),
    "motet_unified": _unified,
    EXPERTS_MODEL_TYPE: _saved_with_pipeline,
    "diffusers": _pipeline,
}
"""By the `model_type` of config.json; a folder with model_index.json is a diffusers pipeline."""
POLICIES: Registry[Callable[[LoadSpec], LoadedPolicy]] = registry("policy")
"""The same and those of plug-ins: a function of a `LoadSpec` that returns the policy."""
for _name, _opener in _OPENERS.items():
    POLICIES.add(_name, _opener)


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"policy.device={name!r} is not available: {str(error).splitlines()[0]}", fix="use policy.device=auto."
        ) from error
    return device


def _model_type(opened: LoadSpec) -> str:
    """What config.json says, before anything is built: transformers would build a Janus around any config."""
    source, preface = opened.source, opened.preface
    folder = Path(source)
    if (folder / "model_index.json").is_file():
        return "diffusers"
    missing = missing_reason(source, "checkpoint")
    if missing is not None:
        fix = "check the path or the hub id, the network, and `hf auth login`."
        raise CheckpointError(f"{preface}{missing}", fix=fix)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{preface}{source!r} holds no config.json.", fix="give the folder that holds it.")
    model_type = _config_of(source, preface).get("model_type")
    if not isinstance(model_type, str) or POLICIES.get(model_type) is None:
        raise CheckpointError(
            f"{preface}{source!r} is a {model_type!r} model, which motet has no policy for.",
            fix="use a Janus or Janus-Pro checkpoint in transformers format (deepseek-community/Janus-Pro-1B), a "
            "Qwen2.5-VL or Qwen3-VL, an Emu3, a diffusers pipeline, or a model that motet saved.",
        )
    return model_type


def _config_of(source: str, preface: str) -> dict[str, Any]:
    if (Path(source) / "config.json").is_file():
        try:
            found = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{preface}{source}/config.json cannot be read: {first_line(error)}.", fix="restore the file."
            ) from error
    try:
        with suppress_hf_output():
            return JanusConfig.get_config_dict(source)[0]
    except Exception as error:  # offline, no such repository, no access: the hub client has a kind for each
        raise CheckpointError(
            f"{preface}{source!r} is not a local folder, and could not be found on the Hub: {first_line(error)}",
            fix="check the path or the hub id, the network, and `hf auth login`.",
        ) from error
