"""Every knob of a recipe, documented; those of `algorithm` are in their own module. Imports no torch.

A recipe combines five choices that never know each other: policy, scenario, reward, algorithm, plan.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from motet.config.algorithm import AlgorithmConfig
from motet.config.sampling import SamplingConfig
from motet.config.section import Section

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of 32 bits, as the noise takes it."""


class LoraConfig(Section):
    """Low-rank adapters through peft; the frozen reference is a fresh adapter off, or a copy of a loaded one."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that get an adapter. Default: a language model's; of an expert its attention."""


class ExpertConfig(Section):
    """What draws by denoising: a diffusers pipeline beside the language model at `policy.path`, or that path itself."""

    path: str | None = None
    """A pipeline folder or hub id (SD3, SANA, FLUX, Qwen-Image); None: `policy.path` is one, or holds what draws."""
    height: PositiveInt | None = None
    """Height of its pictures in pixels; None: the checkpoint's own."""
    width: PositiveInt | None = None
    """Width of its pictures in pixels; None: the checkpoint's own."""
    embedded_guidance: float | None = Field(default=None, ge=0.0)
    """Guidance scale that distilled checkpoints (FLUX.1-dev, Kontext) take as an input; None: their pipeline's own."""
    lora: LoraConfig | None = None
    """Train low-rank adapters on the transformer in place of its weights; the default layers are its attention's."""


class PolicyConfig(Section):
    """Which model acts, and which of its parts train."""

    path: str
    """A checkpoint folder in the transformers layout, a run folder (its newest checkpoint), or a hub id."""
    train: tuple[str, ...] = ("language_model", "lm_head")
    """Parts that train whole, by name. The default is CoRL's, or none beside `lora`; [] lets adapters train alone."""
    lora: LoraConfig | None = None
    """Train low-rank adapters on the language model in place of its weights; a checkpoint's own adapter goes on."""
    expert: ExpertConfig | None = None
    """The diffusion pipeline of a policy of two experts (PromptRL), or of drawings alone."""
    device: str = "auto"
    """`auto` takes CUDA, then MPS, then the CPU; or a torch device name."""
    autocast: Literal["auto", "none", "bfloat16"] = "auto"
    """Compute type of learning; `auto`: bfloat16 on CUDA, the faster one on a CPU. What trains stays float32."""
    rollout_autocast: Literal["auto", "none", "bfloat16"] = "auto"
    """Compute type of sampling text and image tokens; `auto`: that of learning, on a CPU what is faster there."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    max_pixels: PositiveInt | None = None
    """Largest picture that a Qwen-VL reads, in pixels; larger ones are scaled down. None: the checkpoint's own."""
    rollout_batch: PositiveInt | None = None
    """Sample at most this many sequences at once; None: all of a step's. Less memory, the same samples but rounding."""


LONGEST_NAME = 64
"""Bytes of the name of a track, a stage or a strategy, which file names hold beside other words (255 at most)."""
HUB_OPTIONS = ("name", "revision", "data_dir", "data_files")
"""What `data.options` may say of a hub dataset."""


class DataConfig(Section):
    """Where tasks come from. Rows have columns such as `prompt`, `images`/`image`, `question`, `answer`."""

    source: str = "shapes"
    """`shapes` (a world), a file (.jsonl .json .csv .tsv .txt .parquet .tar), a folder saved by datasets, a hub id."""
    split: str = "train"
    """Split of the dataset; the shapes world has `train`, `test` and `held_out`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Renames: motet's column -> the dataset's column, e.g. {question: problem}."""
    size: PositiveInt | None = None
    """Use this many rows; None: all of a file. The shapes world makes rows as they are asked for."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the shapes world (see `motet.shapes.world.WorldOptions`), or a hub dataset's name, revision, ..."""
    targets: dict[str, str] = Field(default_factory=dict)
    """For `motet sft`: act name -> column that demonstrates it, e.g. {drawing: image, answer: solution}."""


class RewardConfig(Section):
    """One reward: which function, with which weight, for which acts."""

    name: str
    """A built-in name (`motet config --rewards` lists them) or a path, `file.py:name` or `package.module:name`."""
    weight: float = 1.0
    """Factor in the sum of its pool."""
    acts: tuple[str, ...] | None = None
    """Names of the acts that it speaks for, and whose completions it is shown; None: all acts of the scenario."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments bound to the function, or what a class or a factory makes the function of."""
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that one call, with all completions of a step, may take; later the run ends with an error."""


class TrackConfig(Section):
    """One thing that a run practises: tasks, the scenario that plays them, and the rewards that judge it."""

    scenario: str = "answer"
    """A built-in scenario (`motet config --scenarios` lists them) or a dotted path `package.module:scenario`."""
    scenario_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the scenario, e.g. {keep: 2} for refine_prompt."""
    data: DataConfig = DataConfig()
    """Where the tasks come from."""
    rewards: tuple[RewardConfig, ...] = ()
    """What judges the trajectories; credit is assigned within the track. `sft` only measures with them."""
    prompts_per_step: PositiveInt = 8
    """P: prompts per rollout; the batch is P x num_generations trajectories (`sft`: P rows)."""


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
    """Shape after the warm-up, down to zero at the last step."""
    learning_rates: dict[str, PositiveFloat] = Field(default_factory=dict[str, PositiveFloat])
    """Peak rates of parts that have their own, by name, whole or by an adapter, e.g. {transformer: 2e-7}."""
    max_grad_norm: PositiveFloat = 1.0
    """Global gradient norm above which gradients are scaled down."""
    tokens_per_microbatch: PositiveInt = 16384
    """Budget of one forward and backward pass; changes memory and speed, not the update."""


class EvalConfig(Section):
    """The before/after measurement of `motet train`, on items that training never sees."""

    suite: Literal["shapes", "rewards", "none"] = "none"
    """What to run before and after training: the shapes suite (`sft`: after), or every track with its own rewards."""
    data: str | None = None
    """Where the suite `rewards` takes its rows: a second file or dataset with the columns of `data`; None: `data`."""
    split: str = "test"
    """Split that the suite `rewards` plays, which training must not see; a single file is played whole."""
    size: PositiveInt = 2048
    """Held-back prompts and questions of the suite (`rewards`: rows of every track, at most)."""
    held_out_size: PositiveInt = 512
    """Prompts and questions of held-out compositions."""
    minutes: PositiveFloat | None = None
    """Time that the first measurement may take: it stops at fewer items, and the last one takes the same."""
    pass_at: PositiveInt = 8
    """Samples per item at temperature 1: their mean is the accuracy, any of them correct is pass@k."""
    guidance_scale: float = Field(default=1.0, ge=1.0)
    """Guidance with which the suite draws; 1: none."""
    every: PositiveInt | None = None
    """Steps between quick looks at up to 256 items while training, for the learning curve; None: none."""
    seed: Seed = 1234
    """Seed of the items and of the sampling noise."""


class RunConfig(Section):
    """How long, how seeded, how often things are written."""

    steps: PositiveInt
    """Rollouts (`train`) or optimizer steps (`sft`)."""
    minutes: PositiveFloat | None = None
    """Train for at most so long: where the steps would take longer there are fewer, and the schedule ends with them."""
    prompts_per_step: PositiveInt = 8
    """P: prompts per rollout; the batch is P x num_generations trajectories (`sft`: P rows)."""
    turn: PositiveInt | None = None
    """With several tracks: steps of one before the next takes over; None: every step plays them all."""
    seed: Seed = 0
    """Seed of the data order and of every trajectory's noise."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; None: by the clock alone, and at the end."""
    save_minutes: PositiveFloat | None = 30.0
    """Minutes after which the next whole step is saved; None: never by the clock."""
    keep_checkpoints: PositiveInt = 2
    """How many checkpoints to keep."""
    sample_every: PositiveInt = 20
    """Steps between picture grids."""
    callbacks: tuple[str, ...] = ()
    """Names or paths (`package.module:name`, `file.py:name`) of callbacks; see docs/how-to/plugins.md."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of torch; None: torch's choice, and fewer while other processes compete for the processor."""


class Recipe(Section):
    """A whole run, as `motet train` and `motet sft` read it."""

    description: str = ""
    """What the recipe does, the hardware and the time it takes, and the numbers to expect."""
    policy: PolicyConfig
    scenario: str = "answer"
    """A built-in scenario (`motet config --scenarios` lists them) or a dotted path `package.module:scenario`."""
    scenario_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the scenario, e.g. {keep: 2} for refine_prompt."""
    data: DataConfig = DataConfig()
    rewards: tuple[RewardConfig, ...] = ()
    tracks: dict[str, TrackConfig] = Field(default_factory=dict[str, TrackConfig])
    """Several things to practise, by name, in place of one scenario with its data, rewards and prompts_per_step."""
    algorithm: AlgorithmConfig = AlgorithmConfig()
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    eval: EvalConfig = EvalConfig()
    run: RunConfig

    def resolved_tracks(self) -> dict[str, TrackConfig]:
        """The tracks by name; a recipe without any is one track without a name."""
        own = TrackConfig(
            scenario=self.scenario,
            scenario_options=self.scenario_options,
            data=self.data,
            rewards=self.rewards,
            prompts_per_step=self.run.prompts_per_step,
        )
        return self.tracks or {"": own}
