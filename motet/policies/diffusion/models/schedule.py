"""The schedule that a checkpoint's `scheduler_config.json` means, followed with motet's own steps.

diffusers' `FlowMatchEulerDiscreteScheduler` computes it itself. Another scheduler of a flow (SANA declares
`DPMSolverMultistepScheduler`) solves the same ODE with other steps: its `flow_shift` is kept and its solver is not, for
a stochastic step of a multistep solver has no density of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.errors import CheckpointError, ConfigError
from motet.numerics.flow.schedules import check_times, dynamic_shift, linear_sigmas

EULER = "FlowMatchEulerDiscreteScheduler"


def check_scheduler(scheduler: Any) -> None:
    """Raises CheckpointError for a scheduler that is not a flow's: its velocities would mean something else."""
    config, name = scheduler.config, type(scheduler).__name__
    flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if name != EULER and not flow:
        raise CheckpointError(
            f"The checkpoint's scheduler is {name} with prediction_type={config.get('prediction_type')!r}, which is "
            "not flow matching.",
            fix=f"use a flow-matching checkpoint: {EULER}, or a solver with use_flow_sigmas.",
        )


def resolution_mu(scheduler: Any, num_tokens: int) -> float:
    """The dynamic shift `mu` that pipelines of SD3, FLUX.1 and Qwen-Image give for an image of this many tokens."""
    config = scheduler.config
    shift = dynamic_shift(
        num_tokens,
        base_seq_len=config.get("base_image_seq_len", 256),
        max_seq_len=config.get("max_image_seq_len", 4096),
        base_shift=config.get("base_shift", 0.5),
        max_shift=config.get("max_shift", 1.15),
    )
    return math.log(shift)


def checkpoint_sigmas(
    scheduler: Any, num_steps: int, *, mu: float, linear_grid: bool, shift: float | None = None
) -> Float[Tensor, "S1"]:
    """Sigmas from 1 to 0 as the checkpoint's own pipeline has them; float32, on the CPU.

    `mu` is the dynamic shift that the pipeline would give for this image, used where the scheduler asks for one.
    `linear_grid`: the pipeline hands its scheduler `1, 1 - 1/S, ..., 1/S` to shift (FLUX, Qwen-Image) instead of
    leaving the scheduler to its own doubly shifted grid (SD3; `motet.numerics.flow.schedules.scheduler_sigmas`).
    `shift` replaces the scheduler's own, `e^mu` where it is dynamic. Raises CheckpointError when the result is not
    a schedule from noise to image, ConfigError for too few steps.
    """
    config = scheduler.config
    if type(scheduler).__name__ != EULER:
        return linear_sigmas(num_steps, shift or config.get("flow_shift") or 1.0)
    if config.get("shift_terminal") and num_steps == 1:
        raise ConfigError(
            f"num_steps=1: the checkpoint's scheduler stretches its steps to end at {config['shift_terminal']}, which "
            "takes two.",
            fix="use sampling.denoising.num_steps of 2 or more.",
        )
    dynamic = bool(config.get("use_dynamic_shifting"))
    if shift is not None and dynamic:
        mu = shift if config.get("time_shift_type") == "linear" else math.log(shift)
    walked = type(scheduler).from_config(config, **({} if shift is None or dynamic else {"shift": shift}))
    asked: dict[str, Any] = {"mu": mu} if dynamic else {}
    if linear_grid:
        walked.set_timesteps(
            sigmas=torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64).numpy(), **asked
        )
    else:
        walked.set_timesteps(num_steps, **asked)
    sigmas = walked.sigmas.float().cpu()
    if abs(float(sigmas[0]) - 1) < 1e-5:
        sigmas[0] = 1.0  # rounding of the shift: a stochastic step from just below 1 would have almost endless noise
    try:
        check_times(sigmas)
    except ValueError as error:
        raise CheckpointError(
            f"The checkpoint's scheduler does not go from noise to image: {error}",
            fix="correct scheduler/scheduler_config.json (invert_sigmas and the like are not supported).",
        ) from None
    return sigmas
