"""Steps of TRL's `GRPOTrainer` on the language model of a Janus, for `motet bench learner`.

TRL's defaults, but float32 and no gradient checkpointing as on our side: rollouts by transformers' `generate`, which is
what TRL does without vLLM; all sequences in one micro-batch; transformers' default optimizer, a fused AdamW.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM, PrinterCallback, TrainerCallback

from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.evaluation.bench_models import Seconds, StepShape, alternating_reward
from motet.policies.janus import JanusPolicy
from motet.weights.hf_output import suppress_hf_output


class TrlSteps:
    """A `GRPOTrainer` with a copy of a policy's weights. `lengths` are those of the last step's completions."""

    def __init__(self, policy: JanusPolicy, shape: StepShape) -> None:
        try:
            import trl
        except ImportError:
            raise ConfigError(
                "The comparison of texts is with TRL, which is not installed.", fix="pip install 'trl>=1.16'."
            ) from None
        self.trl: Any = trl
        self.name = f"TRL {version('trl')} GRPOTrainer"
        self.policy, self.shape = policy, shape
        self.lengths: list[int] = []

    def run(self, steps: int, before_step: Callable[[], None]) -> list[Seconds]:
        """Train for some steps, calling `before_step` before each; their times."""
        timer = _StepTimer(before_step)
        with suppress_hf_output(), tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(Path(folder), steps, timer)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return timer.times

    def _trainer(self, folder: Path, steps: int, timer: _StepTimer) -> Any:
        shape, tokenizer = self.shape, self.policy.encoder.tokenizer
        lengths = self.lengths

        class TimedTrainer(self.trl.GRPOTrainer):
            """Notes how long generation takes."""

            def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
                start = time.perf_counter()
                generated = super()._generate_single_turn(*args, **options)
                timer.generating += time.perf_counter() - start
                lengths[:] = [len(ids) for ids in generated[0]]
                return generated

        from datasets import Dataset

        encodings = self.policy.encoder.encode_all(
            [user(text) for text in shape.texts()], max_new_tokens=shape.tokens, kind="text"
        )
        prompts = [tokenizer.decode(encoding.ids.tolist()) for encoding in encodings]
        for prompt, encoding in zip(prompts, encodings, strict=True):
            assert tokenizer(prompt)["input_ids"] == encoding.ids.tolist(), "both sides train on the same prompts"
        return TimedTrainer(
            self._save_language_model(folder / "model"),
            alternating_reward,
            self._settings(folder, steps),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            callbacks=[timer],
        )

    def _settings(self, folder: Path, steps: int) -> Any:
        shape = self.shape
        return self.trl.GRPOConfig(
            output_dir=str(folder / "run"),
            use_cpu=self.policy.device.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
            per_device_train_batch_size=shape.prompts * shape.generations,
            gradient_accumulation_steps=1,
            num_generations=shape.generations,
            max_completion_length=shape.tokens,
            learning_rate=shape.learning_rate,
            lr_scheduler_type="constant",
            beta=shape.beta,
            max_steps=steps,
            shuffle_dataset=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=shape.seed,
        )

    def _save_language_model(self, folder: Path) -> str:
        """The policy's language model as a checkpoint of its own; TRL loads the reference from the same folder."""
        model = self.policy.model
        config = type(model.config.text_config).from_dict(model.config.text_config.to_dict())
        config.tie_word_embeddings = False
        causal = LlamaForCausalLM(config)
        causal.model.load_state_dict(model.model.language_model.state_dict())
        causal.lm_head.load_state_dict(model.lm_head.state_dict())
        causal.save_pretrained(folder)
        return str(folder)


class _StepTimer(TrainerCallback):
    """Times whole steps, from the first micro-batch to after the optimizer's step."""

    def __init__(self, before_step: Callable[[], None]) -> None:
        self.before_step = before_step
        self.times: list[Seconds] = []
        self.generating = 0.0
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.before_step()
        self.generating, self._start = 0.0, time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        step = time.perf_counter() - self._start
        self.times.append({"generate": self.generating, "learn": step - self.generating, "step": step})
