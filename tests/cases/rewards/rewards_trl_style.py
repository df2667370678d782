"""Rewards as people write them for TRL, and for other frameworks."""

import asyncio
import functools
import re

import numpy
import torch


def with_ids(completions, completion_ids, **kwargs):
    return [float(len(i)) for i in completion_ids]


def with_state(completions, trainer_state, **kwargs):
    return [float(trainer_state.global_step) for _ in completions]


def with_state_max(completions, trainer_state, **kwargs):
    return [trainer_state.global_step / trainer_state.max_steps for _ in completions]


def with_log(completions, answer, log_extra=None, log_metric=None, **kwargs):
    if log_extra:
        log_extra("gold", list(answer))
    if log_metric:
        log_metric("mean_len", 3.0)
    return [0.5 for _ in completions]


def with_log_required(completions, answer, log_extra, log_metric, **kwargs):
    log_extra("gold", list(answer))
    log_metric("mean_len", 3.0)
    return [0.5 for _ in completions]


async def slow(prompts, completions, **kwargs):
    await asyncio.sleep(0.1)
    return [1.0] * len(completions)


class ModelReward:
    def __init__(self, bonus=0.25):
        self.bonus = bonus

    def __call__(self, prompts, completions, **kwargs):
        return [self.bonus] * len(completions)


class AsyncJudge:
    __name__ = "aj"

    async def __call__(self, prompts, completions, **kwargs):
        return [0.7] * len(completions)


judge = ModelReward()
ajudge = AsyncJudge()


def base(completions, bonus, **kwargs):
    return [bonus] * len(completions)


part = functools.partial(base, bonus=0.3)
lam = lambda completions, **kw: [0.1] * len(completions)  # noqa: E731


def strings(completions, **kwargs):  # standard (non-chat) format
    return [float(len(set(c.lower()))) for c in completions]


def first_content(completions, **kwargs):
    return [1.0 if re.match("x", c[0]["content"]) else 0.0 for c in completions]


def tensor(completions, **kwargs):
    return torch.ones(len(completions))


def array(completions, **kwargs):
    return numpy.ones(len(completions))


def bools(completions, **kwargs):
    return [True for _ in completions]


def ints(completions, **kwargs):
    return [1 for _ in completions]


def tensors(completions, **kwargs):
    return [torch.tensor(1.0) for _ in completions]


def too_few(completions, **kwargs):
    return [1.0]


def strs(completions, **kwargs):
    return ["1" for _ in completions]


def nothing(completions, **kwargs):
    pass


def dicts(completions, **kwargs):
    return [{"score": 1.0} for _ in completions]


def wants_solution(completions, solution):
    return [1.0] * len(completions)


def completions_text(prompts, completions, completions_text=None):
    return [1.0] * len(completions)


def environments(completions, environments=None, **kw):
    return [1.0] * len(completions)


def needs_environments(completions, environments, **kw):
    return [1.0] * len(completions)


def flow_grpo(images, prompts, metadata, only_strict=True):
    return [1.0] * len(prompts), {}


def ddpo(images, prompts, **metadata):
    return [1.0] * len(prompts)


def solution_str(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0


def show(images, completions, prompts, **kw):
    row = images[0] if not isinstance(images[0], list) else [type(i) for i in images[0]]
    print("IMAGES", type(images), type(images[0]), row, sorted(kw), prompts[0], completions[0])
    return [1.0] * len(completions)


def redness_of_images(completion_images, **kw):
    return [float(numpy.asarray(row[0].convert("RGB"), float)[..., 0].mean()) for row in completion_images]
