"""Planted faults of supervised training."""

from dataclasses import replace

import torch
from PIL import Image

from tests.preflight.planting import ROWS, fault


def encoded_otherwise(world, change):
    """The report where acts are changed after they were encoded."""
    session = world.sft_policy()
    encode = session.policy.encode_targets
    world.patch.setattr(session.policy, "encode_targets", lambda *given: [change(act) for act in encode(*given)])
    return world.check(session)


@fault("SFT: a target missing in one row", "data_columns", "stopped")
def target_missing(world):
    return world.check(world.sft([*ROWS[:5], {"question": "what is 5 plus 5?"}, *ROWS[6:]]))


@fault("SFT: a column of targets that no row has", "DataError", "stopped", "setup")
def no_target_column(world):
    world.sft(targets={"answer": "solution"})


@fault("SFT: a target that is not a text", "target_rows", "stopped")
def target_of_another_type(world):
    return world.check(world.sft([*ROWS[:-1], {**ROWS[-1], "answer": ["22"]}]))


@fault("SFT: a target longer than the context", "target_rows", "stopped")
def long_target(world):
    return world.check(world.sft([*ROWS[:-1], {**ROWS[-1], "answer": "twenty two " * 200}]))


@fault("SFT: an image longer than the context", "target_rows", "stopped")
def no_space_for_image(world):
    rows = [{"prompt": "a red circle", "image": "one.png"}] * 11
    Image.new("RGB", (16, 16), "red").save(world.folder / "one.png")
    rows.append({"prompt": "a red circle " * 80, "image": "one.png"})
    return world.check(world.sft(rows, scenario="text_to_image", targets={"image": "image"}))


@fault("SFT: a truncated image", "data_readable", "stopped")
def truncated_image(world):
    picture = world.folder / "one.png"
    Image.effect_noise((64, 64), 50.0).save(picture)
    picture.write_bytes(picture.read_bytes()[:2000])
    return world.check(world.sft([*ROWS[:-1], {**ROWS[-1], "image": "one.png"}]))


@fault("SFT: questions as targets", "data_swapped", "flagged")
def swapped(world):
    return world.check(world.sft(columns={"question": "answer", "answer": "question"}))


@fault("SFT: empty targets", "target_variety", "stopped")
def empty_targets(world):
    return world.check(world.sft([{**row, "answer": " "} for row in ROWS]))


@fault("SFT: an empty target in one row", "target_variety", "flagged")
def empty_target(world):
    return world.check(world.sft([*ROWS[:-1], {**ROWS[-1], "answer": ""}]))


@fault("SFT: the same target in every row", "target_variety", "flagged")
def constant_target(world):
    return world.check(world.sft([{**row, "answer": "2"} for row in ROWS]))


@fault("SFT: rejected acts that are the targets", "rejected_targets", "stopped")
def rejected_is_chosen(world):
    return world.check(world.sft(rejected={"answer": "answer"}))


@fault("SFT: characters that the tokenizer does not have", "tokenizer", "flagged")
def lossy_tokenizer(world):
    session = world.sft_policy()
    ids = session.policy.encoder.text_ids
    world.patch.setattr(session.policy.encoder, "text_ids", lambda text: ids(text.replace("?", "")))
    return world.check(session)


@fault("SFT: targets without the end of the sequence", "target_tokens", "stopped")
def without_end(world):
    return encoded_otherwise(world, lambda act: replace(act, ids=act.ids[:-1]))


@fault("SFT: targets cut after some tokens", "target_tokens", "stopped")
def cut(world):
    return encoded_otherwise(world, lambda act: replace(act, ids=act.ids[1:]))


@fault("SFT: tokens that see themselves", "target_causal", "stopped")
def not_causal(world):
    return world.rescored(world.sft_policy(), lambda log_probs: log_probs.roll(-1))


@fault("SFT: acts of a micro-batch that influence each other", "replay_batches", "stopped")
def batch_mixed(world):
    session = world.sft_policy()
    replay = session.policy.replay

    def mixed(acts, needs=()):
        return [replace(one, log_probs=one.log_probs + 0.1 * (len(acts) > 1)) for one in replay(acts, needs)]

    world.patch.setattr(session.policy, "replay", mixed)
    return world.check(session)


@fault("SFT: a frozen part that receives gradients", "gradient_frozen", "stopped")
def frozen_trains(world):
    session = world.sft_policy()
    hidden = {name: p for name, p in session.policy.trainable().items() if "lm_head" not in name}
    world.patch.setattr(session.policy, "trainable", lambda: hidden)
    return world.check(session)


@fault("SFT: replays detached from the weights", "gradient_trainable", "stopped")
def detached(world):
    return world.rescored(world.sft_policy(), lambda own: own.detach().requires_grad_(own.requires_grad))


@fault("SFT: a loss that is not finite", "loss", "stopped")
def infinite_loss(world):
    return world.rescored(world.sft_policy(), lambda log_probs: log_probs * float("inf"))


@fault("SFT: NaN in the weights", "loss", "stopped")
def nan_weights(world):
    session = world.sft()
    with torch.no_grad():
        session.policy.model.model.language_model.norm.weight[0] = float("nan")
    return world.check(session)


@fault("SFT: bfloat16 master weights with a small learning rate", "master_weights", "stopped")
def bfloat16_masters(world):
    session = world.sft()
    for group in session.optimizer.adamw.param_groups:
        group["lr"] = 1e-6
    for parameter in session.policy.trainable().values():
        parameter.data = parameter.data.bfloat16()
    return world.check(session)


@fault("SFT: a full disk", "disk_space", "stopped")
def full_disk(world):
    world.patch.setattr("motet.preflight.checks.weights.free_bytes", lambda folder: 1000)
    return world.check(world.sft_policy())
