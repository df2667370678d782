"""Every key of a recipe, documented; those of `algorithm` are in their own module. Imports no torch.

A recipe combines a policy, a scenario, data, rewards and an algorithm; each is chosen independently of the others.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from motet.config.algorithm import AlgorithmConfig
from motet.config.choice import Choice
from motet.config.sampling import SamplingConfig
from motet.config.section import Section

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""32 bits, the range of the noise's seeds."""


class LoraConfig(Section):
    """Low-rank adapters (peft). The reference weights are the model without them, or a copy of a loaded adapter."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that get an adapter. Default: a language model's; of a diffusion transformer its attention."""


class DiffusionConfig(Section):
    """Image generation by denoising: a diffusers pipeline beside the language model, or `policy.path` itself."""

    path: str | None = None
    """A pipeline folder or hub id (SD3, SANA, FLUX, Qwen-Image); None: `policy.path` is or holds the pipeline."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of generated images in pixels; None: the checkpoint's default."""
    embedded_guidance: float | None = Field(default=None, ge=0.0)
    """Guidance scale that distilled checkpoints (FLUX.1-dev, Kontext) take as input; None: the pipeline's default."""
    lora: LoraConfig | None = None
    """Train low-rank adapters on the transformer instead of its weights; default layers: those of its attention."""


Dtype = Literal["auto", "float32", "bfloat16"]
"""The data type of forward passes; trainable parameters stay float32."""


class PolicyConfig(Section):
    """The model, and which of its components train."""

    path: str
    """A checkpoint folder in the transformers layout, a run folder (its newest checkpoint), or a hub id."""
    train: tuple[str, ...] = ("language_model", "lm_head")
    """Components that train in full. Default: those of CoRL, or none beside `lora`; []: only the adapters train."""
    lora: LoraConfig | None = None
    """Train low-rank adapters on the language model instead of its weights; a checkpoint's adapter is continued."""
    diffusion: DiffusionConfig | None = None
    """The diffusion pipeline beside a language model (PromptRL), or on its own."""
    device: str = "auto"
    """A torch device; `auto`: CUDA, else MPS, else the CPU."""
    dtype: Dtype = "auto"
    """Data type of training; `auto`: bfloat16 on CUDA, the faster of the two on a CPU."""
    rollout_dtype: Dtype = "auto"
    """Data type of sampling text and image tokens; `auto`: that of training, on a CPU the faster of the two."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    max_pixels: PositiveInt | None = None
    """Largest image that a Qwen-VL encodes, in pixels; larger ones are scaled down. None: the checkpoint's default."""
    generation_batch_size: PositiveInt | None = None
    """Sequences sampled at once; None: all of a step. Saves memory; samples are the same up to rounding."""


LONGEST_NAME = 64
"""Bytes of the name of a track, stage or strategy: it is part of file names, which have at most 255."""
HUB_OPTIONS = ("name", "revision", "data_dir", "data_files", "streaming", "shuffle_buffer")
"""Keys of `data.options` for a hub dataset."""
MIXTURE = "mixture"
"""The `data.source` of several sources, see `motet.data.mixture`."""


class DataConfig(Section):
    """The source of tasks. Rows have columns such as `prompt`, `images`/`image`, `question`, `answer`."""

    source: str = "shapes"
    """`shapes`, `words`, `easy_vqa`, a file (.jsonl .json .csv .tsv .txt .parquet .tar), a saved folder, a hub id."""
    split: str = "train"
    """Split of the dataset; the shapes worlds have `train`, `test`, `held_out`, ..., words also `prompts`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Renames: motet's column -> the dataset's column, e.g. {question: problem}."""
    size: PositiveInt | None = None
    """Number of rows to use; None: all of a file. The shapes world generates rows on demand."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the shapes world (see `motet.shapes.options`), or a hub dataset's name, revision, ..."""
    targets: dict[str, str] = Field(default_factory=dict)
    """For `motet sft`: act name -> column of its target, e.g. {image: image, answer: solution}."""
    rejected: dict[str, str] = Field(default_factory=dict)
    """For `motet sft` with a loss of pairs (dpo): act name -> column of what the target is preferred to."""


class CallOptions(Section):
    """Options of what happens when a reward fails."""

    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Time limit in seconds of one call with all completions of a step; a longer call has failed."""
    process: bool = False
    """Call the reward in a worker process, which is killed at the timeout and started again when it dies."""


class RetryOptions(CallOptions):
    """Options of `retry`."""

    retries: PositiveInt = 2
    """Further calls with the completions that could not be scored, after waits that double, with jitter."""
    then: Literal["raise", "drop"] = "raise"
    """What follows when the last of them fails."""


ON_FAILURE: dict[str, type[Section]] = {"raise": CallOptions, "drop": CallOptions, "retry": RetryOptions}
"""What happens when a reward fails, and its options."""


class RewardConfig(Section):
    """One reward: which function, with which weight, for which acts."""

    name: str
    """A built-in name (`motet rewards` lists them) or a path, `file.py:name` or `package.module:name`."""
    weight: float = 1.0
    """Factor in the weighted sum of rewards; 0: only logged."""
    acts: tuple[str, ...] | None = None
    """Names of the acts that it is assigned to and is given the completions of; None: all acts of the scenario."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments bound to the function, or passed to the class or factory that creates it."""
    on_failure: Choice = Choice.of("raise")
    """`raise`: the run ends; `drop`: trajectories that cannot be scored are dropped; `retry`: call again, then one."""

    @field_validator("on_failure", mode="before")
    @classmethod
    def _raise_by_default(cls, value: Any) -> Any:
        """Options without a name, such as {timeout: 60}, are those of `raise`."""
        return {"name": "raise", **cast("dict[str, Any]", value)} if isinstance(value, dict) else value


class TrackConfig(Section):
    """One task of multi-task training: a scenario, its data and its rewards."""

    scenario: Choice = Choice.of("answer")
    """A built-in scenario (`motet config --scenarios` lists them) or a path `package.module:scenario`, with options."""
    data: DataConfig = DataConfig()
    """The source of tasks."""
    rewards: tuple[RewardConfig, ...] = ()
    """Rewards of the trajectories; advantages are computed within the track. `sft` only logs them."""
    prompts_per_step: PositiveInt = 8
    """P: prompts per rollout; the batch is P x num_generations trajectories (`sft`: P rows)."""


class SftConfig(Section):
    """Condition dropout of `motet sft` for classifier-free guidance; of an edit at most one of the three happens."""

    prompt_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of image targets whose prompt is dropped, to train the unconditional branch."""
    source_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Denoising only: share of edits whose source image is dropped."""
    joint_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Denoising only: share of edits whose prompt and source image are both dropped."""


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: PositiveFloat = 1e-6
    """Peak rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up; `linear` and `cosine` reach zero at the last step."""
    param_group_lrs: dict[str, PositiveFloat] = Field(default_factory=dict[str, PositiveFloat])
    """Peak rates of single components or their adapters, by name, e.g. {transformer: 2e-7}."""
    max_grad_norm: PositiveFloat = 1.0
    """Global gradient norm above which gradients are scaled down."""
    max_tokens_per_microbatch: PositiveInt = 16384
    """Upper bound of one forward and backward pass; changes memory and speed, not the update."""


class ShapesSuiteOptions(Section):
    """Options of the evaluation suite `shapes`."""

    held_out_size: PositiveInt = 512
    """Prompts and questions of held-out compositions; of the large world, of each of its three sets."""
    guidance_scale: float = Field(default=1.0, ge=1.0)
    """Classifier-free guidance scale of image generation; 1: none."""


class RewardsSuiteOptions(Section):
    """Options of the evaluation suite `rewards`: rows that training must not see."""

    data: str | None = None
    """A second file or dataset with the columns of `data`; None: `data` itself."""
    split: str = "test"
    """Split to evaluate on; a single file is used whole."""


class NoOptions(Section):
    """A choice without options."""


SUITES: dict[str, type[Section]] = {"shapes": ShapesSuiteOptions, "rewards": RewardsSuiteOptions, "none": NoOptions}
"""Built-in evaluation suites and their options."""


class EvalConfig(Section):
    """Evaluation before and after training, on items that training never sees."""

    suite: Choice = Choice.of("none")
    """`shapes` (`sft`: only after training), `easy_vqa`, `geneval`, `dpg`, `wise`; `rewards`: each track's; `none`."""
    size: PositiveInt = 2048
    """Validation prompts and questions (`rewards`: rows of every track, at most)."""
    minutes: PositiveFloat | None = None
    """Time limit of the first evaluation: it stops at fewer items, and the last one uses the same items."""
    samples_per_item: PositiveInt = 8
    """k samples per item at temperature 1: their mean is the accuracy, any of them correct is pass@k."""
    every: PositiveInt | None = None
    """Steps between evaluations on up to 256 items during training, for the learning curve; None: none."""
    seed: Seed = 1234
    """Seed of the items and of the sampling noise."""


class RunConfig(Section):
    """Length, seed and output of a run."""

    steps: PositiveInt
    """Rollouts (`train`) or optimizer steps (`sft`)."""
    minutes: PositiveFloat | None = None
    """Time limit of training: no step starts that would end after it, and the schedule ends with the last one."""
    prompts_per_step: PositiveInt = 8
    """P: prompts per rollout; the batch is P x num_generations trajectories (`sft`: P rows)."""
    steps_per_track: PositiveInt | None = None
    """With several tracks: steps on one before the next; None: every step trains on all of them."""
    seed: Seed = 0
    """Seed of the data order and of the noise of every trajectory."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; None: by `save_minutes` only, and at the end."""
    save_minutes: PositiveFloat | None = 30.0
    """Minutes after which the next whole step is saved; None: by `save_every` only."""
    keep_checkpoints: PositiveInt = 2
    """Number of checkpoints to keep."""
    log_samples_every: PositiveInt = 20
    """Steps between logged samples (texts and image grids)."""
    callbacks: tuple[Choice, ...] = ()
    """Monitors (docs/how-to/monitors.md) and callbacks, by name or path (`package.module:name`), with options."""
    report_to: tuple[Choice, ...] = ()
    """Trackers: `tensorboard`, `trackio`, `wandb`, `mlflow`, with options (docs/how-to/trackers.md); `none`."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of torch; None: torch's choice, fewer while other processes compete for the processor."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """One tracker may stand without a list."""
        if isinstance(value, str | dict | Choice):
            return () if value == "none" else (value,)
        return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


class Recipe(Section):
    """A run of `motet train` or `motet sft`."""

    description: str = ""
    """What the recipe does, on which hardware, in which time, with which expected results."""
    policy: PolicyConfig
    scenario: Choice = Choice.of("answer")
    """A built-in scenario (`motet config --scenarios` lists them) or a path `package.module:scenario`, with options."""
    data: DataConfig = DataConfig()
    rewards: tuple[RewardConfig, ...] = ()
    tracks: dict[str, TrackConfig] = Field(default_factory=dict[str, TrackConfig])
    """Multi-task training: tracks by name, instead of scenario, data, rewards and run.prompts_per_step."""
    algorithm: AlgorithmConfig = AlgorithmConfig()
    sft: SftConfig = SftConfig()
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    eval: EvalConfig = EvalConfig()
    run: RunConfig

    def resolved_tracks(self) -> dict[str, TrackConfig]:
        """The tracks by name; a recipe without any is one track without a name."""
        track = TrackConfig(
            scenario=self.scenario,
            data=self.data,
            rewards=self.rewards,
            prompts_per_step=self.run.prompts_per_step,
        )
        return self.tracks or {"": track}
