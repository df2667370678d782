"""Seconds by arithmetic: what bounds a decode step, what a replay costs, what ranks exchange, where steps saturate."""

from dataclasses import replace

import pytest

from motet.estimation.communication import all_reduce_seconds, learn_seconds
from motet.estimation.efficiency import Efficiency
from motet.estimation.hardware import DEVICES
from motet.estimation.memory import Settings
from motet.estimation.model_size import LanguageSize, ModelSize, PartSize
from motet.estimation.simulate import simulate, with_groups
from motet.estimation.step_time import Machine, decode_seconds, optimizer_seconds, replay_flops, step_time
from motet.estimation.workload import ActLoad

LANGUAGE = LanguageSize(24, 2048, 16, 16, 128, 5632, 102400, 102400 * 2048)
TRAINED = LANGUAGE.products + LANGUAGE.text_head
SIZE = ModelSize(
    "janus",
    {"language_model": PartSize(LANGUAGE.products, trains=True), "lm_head": PartSize(LANGUAGE.text_head, trains=True)},
    LANGUAGE,
    None,
    {"language_model": (LANGUAGE.layer_products,) * 24},
)
SETTINGS = Settings(1, "replicas", "bfloat16", "bfloat16", 16384, None, False, False)
TEXT = ActLoad("", "answer", "text", 16, 8, 100, 0, 256, 256, 256.0)
IDEAL = Machine(DEVICES["h100"], Efficiency(1.0, 1.0, 1.0, 1.0, kernel_seconds=0.0))


def test_a_decode_step_of_one_row_reads_all_weights() -> None:
    one = decode_seconds(LANGUAGE, TEXT, lambda _: 1.0, SETTINGS, IDEAL) / TEXT.positions
    assert one == pytest.approx(2 * TRAINED / 3.35e12, rel=0.02)  # and a few keys, values and logits


def test_a_decode_step_of_many_rows_is_bound_by_products() -> None:
    rows = 4096.0
    short = replace(TEXT, context=0, positions=16, actions=16)
    seconds = decode_seconds(LANGUAGE, short, lambda _: rows, SETTINGS, IDEAL) / short.positions
    assert seconds == pytest.approx(rows * 2 * TRAINED / 989.5e12, rel=0.02)


def test_a_replay_is_six_operations_per_parameter_and_token() -> None:
    load = replace(TEXT, groups=1, context=0)  # no prompt: nothing is shared or recomputed but the head's chunks
    forward, backward = replay_flops(SIZE, load, SETTINGS)
    tokens = 8 * 256
    attention = 0.5 * 4 * 24 * 2048 * 8 * 256**2
    assert forward == 2 * TRAINED * tokens + attention
    assert backward == 4 * TRAINED * tokens + 2 * attention + 2 * LANGUAGE.text_head * tokens
    again = replay_flops(SIZE, load, replace(SETTINGS, checkpointing=True))[1]
    assert again - backward == 2 * LANGUAGE.products * tokens + attention
    frozen = replace(SIZE, parts={**SIZE.parts, "language_model": PartSize(LANGUAGE.products)})
    adapters = replace(frozen, language=replace(LANGUAGE, adapters=10))
    assert backward - replay_flops(adapters, load, SETTINGS)[1] == 2 * LANGUAGE.products * tokens


def test_an_optimizer_step_moves_ten_floats_per_parameter() -> None:
    assert optimizer_seconds(SIZE, SETTINGS, IDEAL) == pytest.approx(40 * TRAINED / 3.35e12)


def test_an_all_reduce_moves_twice_the_bytes_through_the_slowest_link() -> None:
    device, ideal = DEVICES["h100"], Efficiency(links=1.0)
    inside = all_reduce_seconds(8e9, 8, device, ideal)
    assert inside == pytest.approx(2 * 7 / 8 * 8e9 / 450e9, rel=0.01)
    outside = all_reduce_seconds(8e9, 64, device, ideal) - inside
    assert outside == pytest.approx(2 * 7 / 8 * 8e9 / (8 * 50e9), rel=0.01)
    assert all_reduce_seconds(8e9, 1, device, ideal) == 0.0


def test_fsdp_hides_communication_behind_computation() -> None:
    settings = replace(SETTINGS, ranks=64, parallel="fsdp")
    exposed = learn_seconds(SIZE, settings, DEVICES["h100"], Efficiency(), 0.0, 1)
    assert learn_seconds(SIZE, settings, DEVICES["h100"], Efficiency(), 100.0, 1) == 0.0 < exposed


def test_one_simulated_rank_takes_what_the_arithmetic_says() -> None:
    size = replace(SIZE, language=replace(LANGUAGE, image_codes=102400, image_head=LANGUAGE.text_head))
    images = [replace(TEXT, kind="image")]  # all of one length
    found, time = simulate(size, images, SETTINGS, IDEAL), step_time(size, images, SETTINGS, IDEAL)
    assert found.seconds == pytest.approx(time.total - time.rollout["sampler's copy"], rel=1e-6)
    assert (found.busy, found.idle, found.waiting) == pytest.approx((1.0, 0.0, 0.0), abs=1e-6)


def test_more_ranks_than_groups_are_idle() -> None:
    load = replace(TEXT, positions=64, actions=64, mean_positions=16.0)
    few, many = (simulate(SIZE, [load], replace(SETTINGS, ranks=ranks), IDEAL) for ranks in (16, 64))
    assert many.seconds == pytest.approx(few.seconds, rel=0.2)  # the all-reduce crosses machines
    assert few.idle == 0.0 < many.idle
    grown = simulate(SIZE, with_groups([load], 4.0), replace(SETTINGS, ranks=64), IDEAL)
    assert grown.trajectories_per_second > 3 * few.trajectories_per_second
    assert grown == simulate(SIZE, with_groups([load], 4.0), replace(SETTINGS, ranks=64), IDEAL)


def test_shares_of_a_simulated_step_add_up() -> None:
    load = replace(TEXT, positions=64, actions=64, mean_positions=16.0)
    found = simulate(SIZE, [load], replace(SETTINGS, ranks=32), IDEAL, reward_seconds=0.01)
    assert found.busy + found.waiting + found.idle + found.communicating == pytest.approx(1.0)
    assert found.waiting > 0 and found.communicating > 0
