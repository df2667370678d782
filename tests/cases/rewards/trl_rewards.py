"""Rewards in TRL's whole contract, as a TRL user would name them."""

import random

import numpy as np
import torch
from trl.rewards import accuracy_reward as accuracy_reward
from trl.rewards import get_cosine_scaled_reward, get_repetition_penalty_reward, get_soft_overlong_punishment
from trl.rewards import reasoning_accuracy_reward as reasoning_accuracy_reward
from trl.rewards import think_format_reward as think_format_reward

soft_overlong = get_soft_overlong_punishment(max_completion_len=12, soft_punish_cache=6)
repetition = get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
cosine = get_cosine_scaled_reward(max_len=12)


def as_tensor(completions, **kw):
    return torch.tensor([float(len(c[0]["content"])) for c in completions])


def as_array(completions, **kw):
    return np.array([float(len(c[0]["content"])) for c in completions])


def as_tuple(completions, **kw):
    return tuple(float(len(c[0]["content"])) for c in completions)


def as_tensors(completions, **kw):
    return [torch.tensor(float(len(c[0]["content"]))) for c in completions]


def one(completions, **kw):
    return [1.0]


def with_state(completions, trainer_state, **kw):
    return [float(len(c[0]["content"])) for c in completions]


def with_log(completions, log_metric, log_extra, **kw):
    return [float(len(c[0]["content"])) for c in completions]


def with_ids(completions, completion_ids, **kw):
    return [float(len(i)) for i in completion_ids]


def prompts_text(prompts, completions, **kw):
    return [float(len(p[-1]["content"])) for p in prompts]


def faulty(completions, **kw):
    return [None if i % 4 == 1 else random.random() for i, _ in enumerate(completions)]


def fine(completions, **kw):
    return [float(len(c[0]["content"])) for c in completions]


class Weighted:
    def __init__(self):
        self.w = 2

    def __call__(self, completions, **kw):
        return [self.w * float(len(c[0]["content"])) for c in completions]


weighted = Weighted()
lam = lambda completions, **kw: [1.0 * i for i, _ in enumerate(completions)]  # noqa: E731
