"""Planted faults of sampling, replaying, gradients and weights."""

import copy
from dataclasses import replace
from typing import Any

import torch

from motet.policies.generation import policy as generation
from motet.policies.generation.decode_loop import PromptEmbeddings
from motet.training.engines import Engines
from motet.training.remote_rollout import RemoteRollout, Snapshot
from tests.distributed.fake_backend import FakeBackend
from tests.preflight.planting import ROWS, fault, with_sampling

UNEVEN = [{**row, "question": row["question"] * (n + 1)} for n, row in enumerate(ROWS)]


@fault("replay shifted by one action", "log_probs", "stopped")
def shift(world):
    return world.rescored(world.session(), lambda log_probs: log_probs.roll(1))


@fault("the last action of each act scored wrongly", "ratio", "stopped")
def last_action(world):
    def change(log_probs):
        return torch.cat([log_probs[:-1], log_probs[-1:] + 0.05 * (len(log_probs) > 1)]) * 1.0

    session = world.session(scenario="text_to_image", rewards=[world_reward()], sampling={"image": {}})
    world.patch.setattr("motet.preflight.checks.replays.FLOAT32_MEAN", 0.05)  # the mean alone would not see it
    return world.rescored(session, change)


def world_reward() -> dict[str, Any]:
    from tests.runs import REWARDS

    return {"name": f"{REWARDS}reddish"}


@fault("replay at another temperature", "log_probs", "stopped")
def temperature(world):
    return world.replayed_otherwise(world.session(), with_sampling(temperature=0.5))


@fault("replay with top-k that sampling did not have", "log_probs", "stopped")
def top_k(world):
    return world.replayed_otherwise(world.session(), with_sampling(top_k=2))


@fault("guided sampling, unguided replay", "log_probs", "stopped")
def guidance(world):
    session = world.session(
        sampling={"image": {"guidance": "guided", "guidance_scale": 5.0}, "text": {"max_tokens": 8}}
    )
    return world.replayed_otherwise(session, with_sampling(guidance="none"))


@fault("an engine that ignores the recipe's temperature", "sampling_settings", "stopped")
def ignored_setting(world):
    session = world.session()
    act = session.policy.act
    world.patch.setattr(session.policy, "act", lambda requests, s: act(requests, replace(s, temperature=0.7)))
    return world.check(session)


@fault("sampled at a lower temperature than is scored", "scored_distribution", "flagged")
def sharpened(world):
    session = world.session()
    act, replay = session.policy.act, session.policy.replay

    def sharp(requests, sampling):
        found = act(requests, replace(sampling, temperature=0.05))
        plain = [replace(one, sampling=sampling) for one in found]
        with torch.no_grad():
            log_probs = [one.log_probs.clone() for one in replay(plain)]
        return [replace(one, log_probs=own) for one, own in zip(plain, log_probs, strict=True)]

    world.patch.setattr(session.policy, "act", sharp)
    return world.check(session)


@fault("prompts padded on the wrong side", "rollout", "stopped")
def padding_side(world):
    right = generation.left_padded

    def wrong(adapter, encodings):
        prompts, owner, null_rows = right(adapter, encodings)
        tables, masks = [], []
        for row, seen in zip(prompts.embeddings, prompts.mask, strict=True):
            tables.append(torch.cat([row[seen], row[~seen]]))
            masks.append(torch.cat([seen[seen], seen[~seen]]))
        return PromptEmbeddings(torch.stack(tables), torch.stack(masks)), owner, null_rows

    world.patch.setattr(generation, "left_padded", wrong)
    return world.check(world.answers(UNEVEN))


@fault("padding that is not masked", "log_probs", "stopped")
def unmasked_padding(world):
    right = generation.left_padded

    def wrong(adapter, encodings):
        prompts, owner, null_rows = right(adapter, encodings)
        return PromptEmbeddings(prompts.embeddings, torch.ones_like(prompts.mask)), owner, null_rows

    world.patch.setattr(generation, "left_padded", wrong)
    return world.check(world.answers(UNEVEN))


@fault("acts of a micro-batch that influence each other", "replay_batches", "stopped")
def batch_mixed(world):
    session = world.session()
    replay = session.policy.replay

    def mixed(acts, needs=()):
        return [replace(one, log_probs=one.log_probs + 0.1 * (len(acts) > 1)) for one in replay(acts, needs)]

    world.patch.setattr(session.policy, "replay", mixed)
    return world.check(session)


@fault("a policy with random numbers of its own", "sampling_repeats", "flagged")
def nondeterministic(world):
    session, calls = world.session(), [0]
    act = session.policy.act

    def random_act(requests, sampling):
        calls[0] += 1
        return act([replace(one, key=(*one.key, calls[0])) for one in requests], sampling)

    world.patch.setattr(session.policy, "act", random_act)
    return world.check(session)


@fault("an image missing from the prompt", "image_tokens", "stopped")
def dropped_image(world):
    session = world.session()
    encoder = session.policy.encoder
    world.patch.setattr(encoder, "_encode_images", lambda images: (None, None, [[] for _ in images]))
    return world.check(session)


@fault("an image-token span one too short", "rollout", "stopped")
def short_span(world):
    session = world.session()
    encoder = session.policy.encoder
    encode = encoder._encode_images

    def short(images):
        pixels, sizes, ids = encode(images)
        return pixels, sizes, [own[:-2] + own[-1:] for own in ids]

    world.patch.setattr(encoder, "_encode_images", short)
    return world.check(session)


@fault("denoising replayed on another schedule", "schedule", "stopped")
def other_schedule(world):
    def shifted(act):
        return replace(act, times=act.times**1.5)

    return world.replayed_otherwise(world.flow(), shifted)


@fault("a schedule off by one step", "schedule", "stopped")
def schedule_off_by_one(world):
    return world.replayed_otherwise(world.flow(), lambda act: replace(act, times=act.times.roll(-1)))


@fault("an engine with another number of denoising steps", "schedule", "stopped")
def other_steps(world):
    session = world.flow()
    act = session.policy.act

    def fewer(requests, sampling):
        return [replace(one, sampling=sampling) for one in act(requests, replace(sampling, num_steps=4))]

    world.patch.setattr(session.policy, "act", fewer)
    return world.check(session)


@fault("denoising replayed at another noise level", "log_probs", "stopped")
def noise_level(world):
    return world.replayed_otherwise(world.flow(), with_sampling(noise_level=0.3))


@fault("denoising replayed under another SDE", "log_probs", "stopped")
def other_sde(world):
    return world.replayed_otherwise(world.flow(), with_sampling(sde_type="cps"))


@fault("a frozen part that receives gradients", "gradient_frozen", "stopped")
def frozen_trains(world):
    session = world.session()
    named = session.policy.trainable()
    hidden = {name: p for name, p in named.items() if "lm_head" not in name}
    world.patch.setattr(session.policy, "trainable", lambda: hidden)
    return world.check(session)


@fault("a part unfrozen after the optimizer was made", "optimizer_parameters", "stopped")
def unfrozen_later(world):
    session = world.fresh(policy={"path": str(world.checkpoint), "device": "cpu", "train": ["lm_head"]})
    session.policy.train_parts(["lm_head", "generation_head"])
    return world.check(session)


@fault("a trained part without a gradient", "gradient_trainable", "flagged")
def part_without_gradient(world):
    train = {"path": str(world.checkpoint), "device": "cpu", "train": ["language_model", "generation_head"]}
    return world.check(world.session(policy=train, scenario="answer", rewards=[{"name": "exact_answer"}]))


@fault("replays detached from the weights", "gradient_trainable", "stopped")
def detached(world):
    session = world.session()
    return world.rescored(session, lambda log_probs: log_probs.detach().requires_grad_(log_probs.requires_grad))


@fault("a gradient that is not finite", "gradient_finite", "stopped")
def broken_gradient(world):
    session = world.session()
    parameter = next(iter(session.policy.trainable().values()))
    handle = parameter.register_hook(lambda gradient: gradient * float("nan"))
    try:
        return world.check(session)
    finally:
        handle.remove()


@fault("NaN in the weights", "rollout", "stopped")
def nan_weights(world):
    session = world.fresh()
    with torch.no_grad():
        session.policy.model.model.language_model.norm.weight[0] = float("nan")
    return world.check(session)


@fault("a learning rate of 0", "ConfigError", "stopped", "setup")
def no_learning_rate(world):
    world.fresh(optimizer={"learning_rate": 0.0})


@fault("bfloat16 master weights with a small learning rate", "master_weights", "stopped")
def bfloat16_masters(world):
    session = world.fresh(optimizer={"learning_rate": 1e-6}, scenario="answer", rewards=[{"name": "exact_answer"}])
    for parameter in session.policy.trainable().values():
        parameter.data = parameter.data.bfloat16()
    return world.check(session)


@fault("a reference that is another checkpoint", "reference", "stopped")
def other_reference(world):
    session = world.fresh(algorithm={"num_generations": 2, "advantage_assignment": "factorized", "beta": 0.1})
    start = session.policy.references[0].start
    for name in start:
        start[name] = start[name] + 0.05
    return world.check(session)


@fault("a forward pass that changes weights", "weights_unchanged", "stopped")
def changes_weights(world):
    session = world.fresh()
    replay, parameter = session.policy.replay, next(iter(session.policy.trainable().values()))

    def writes(acts, needs=()):
        with torch.no_grad():
            parameter.data += 1e-4
        return replay(acts, needs)

    world.patch.setattr(session.policy, "replay", writes)
    return world.check(session)


@fault("rollout workers with stale weights", "rollout_weights", "stopped")
def stale_worker(world):
    session = world.fresh()
    with torch.no_grad():
        for parameter in session.policy.trainable().values():
            parameter += 0.05  # the workers load the checkpoint, and are not given these
    world.patch.setattr(Snapshot, "load_into", lambda self, policy: setattr(policy, "version", self.version))
    remote = RemoteRollout.of(FakeBackend(), session.recipe, 2)
    try:
        return world.check(session, Engines(remote))
    finally:
        remote.close()


@fault("a rollout worker with another checkpoint's frozen weights", "rollout_weights", "stopped")
def other_frozen_weights(world):
    session = world.fresh(policy={"path": str(world.checkpoint), "device": "cpu", "train": ["lm_head"]})
    remote = RemoteRollout.of(FakeBackend(), copy.deepcopy(session.recipe), 1)
    with torch.no_grad():
        session.policy.model.model.vision_model.get_parameter("embeddings.patch_embedding.weight").mul_(1.01)
    try:
        return world.check(session, Engines(remote))
    finally:
        remote.close()
