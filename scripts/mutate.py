"""Plant faults and see the tests catch them: a test that cannot fail proves nothing.

    python scripts/mutate.py            every fault
    python scripts/mutate.py shift      those whose name contains "shift"

Each fault is one exact replacement in one file of a private copy of the tree, with the tests meant to catch it.
First those tests must pass without any fault. Exit status 1 when a fault survives, or no longer finds its place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fault:
    """Replace `search`, which occurs once in `file`, by `replace`; `tests` must then fail."""

    name: str
    file: str
    search: str
    replace: str
    tests: tuple[str, ...]


def numerics(name: str, file: str, search: str, replace: str, test: str) -> Fault:
    return Fault(name, f"motet/numerics/{file}.py", search, replace, (f"tests/numerics/test_{test}",))


FAULTS = (
    numerics(
        "wrong temperature: multiplied instead of divided",
        "logprobs",
        "logits.float() / temperature",
        "logits.float() * temperature",
        "logprobs.py::test_temperature_divides_the_logits",
    ),
    numerics(
        "temperature forgotten at replay",
        "logprobs",
        "scoring_logits(logits, temperature=temperature, top_k",
        "scoring_logits(logits, top_k",
        "logprobs.py::test_replayed_log_probs_equal_sampled_ones",
    ),
    numerics(
        "guidance mixed from the wrong branch",
        "logprobs",
        "unconditional + scale * (conditional - unconditional)",
        "conditional + scale * (conditional - unconditional)",
        "logprobs.py::test_guidance_by_hand",
    ),
    Fault(
        "ratio upside down",
        "motet/numerics/ratios.py",
        "log_ratios = log_probs - old_log_probs.detach()",
        "log_ratios = old_log_probs.detach() - log_probs",
        ("tests/training/losses/test_policy_gradient.py::test_token_ratios_by_hand",),
    ),
    Fault(
        "clip takes the optimistic side",
        "motet/training/losses/grpo.py",
        "-torch.minimum(",
        "-torch.maximum(",
        ("tests/training/losses/test_policy_gradient.py::test_clip_by_hand",),
    ),
    Fault(
        "sign of the policy loss flipped",
        "motet/training/losses/grpo.py",
        "return -ratios * advantages",
        "return ratios * advantages",
        ("tests/training/losses/test_policy_gradient.py::test_epsilon_none_never_clips",),
    ),
    Fault(
        "DiffusionNFT: the implicit policies exchanged",
        "motet/training/losses/nft.py",
        "return r * positive + (1 - r) * negative",
        "return r * negative + (1 - r) * positive",
        ("tests/training/losses/test_nft.py::test_by_hand",),
    ),
    Fault(
        "DPO: chosen and rejected exchanged",
        "motet/training/losses/dpo.py",
        "chosen, rejected = rewards[0::2], rewards[1::2]",
        "rejected, chosen = rewards[0::2], rewards[1::2]",
        ("tests/training/losses/test_dpo.py::test_it_is_trls_loss_of_tokens",),
    ),
    Fault(
        "Diffusion-DPO: the two images noised differently",
        "motet/training/losses/dpo.py",
        "renoise(one.act, chosen.key)",
        "renoise(one.act, one.key)",
        ("tests/training/losses/test_dpo.py::test_sampled_images_are_noised_alike",),
    ),
    Fault(
        "dynamic sampling: groups without variance kept",
        "motet/training/trainer.py",
        "        if varies:",
        "        if not varies:",
        ("tests/training/test_dynamic_sampling.py::test_flat_groups_are_replaced_up_to_the_limit",),
    ),
    Fault(
        "GRPO-Guard: the bias of the log-ratio left in",
        "motet/training/losses/grpo_guard.py",
        "(x_next.detach().to(mean) - old)",
        "(x_next.detach().to(mean) - mean)",
        ("tests/training/losses/test_grpo_guard.py::test_it_is_the_published_formula",),
    ),
    Fault(
        "denominator of the micro-batch instead of the step",
        "motet/numerics/aggregation.py",
        "return _constant(owner, counts.num_actions)",
        "return _constant(owner, len(owner))",
        ("tests/training/losses/test_policy_gradient.py::test_any_split_into_microbatches_gives_the_same_gradient",),
    ),
    Fault(
        "several processes: the mean of gradients instead of their sum",
        "motet/distributed/replicas.py",
        "            self.processes.all_reduce_([flat])\n",
        "            self.processes.all_reduce_([flat.div_(self.processes.size)])\n",
        ("tests/distributed/test_replicas.py::test_only_parameters_that_some_process_touched_get_a_gradient",),
    ),
    Fault(
        "several processes: denominators of a process's own acts",
        "motet/training/policy_update.py",
        "            counts=counts,\n",
        "            counts=None,\n",
        ("tests/distributed/test_replicas.py::test_a_shared_run_is_the_run_of_one_process",),
    ),
    Fault(
        "several processes: groups rolled out by another process than their owner",
        "motet/training/trainer.py",
        "mine = self.session.processes.own(placed)",
        "mine = placed[self.session.processes.size - 1 - self.session.processes.rank :: self.session.processes.size]",
        ("tests/distributed/test_replicas.py::test_a_shared_run_is_the_run_of_one_process",),
    ),
    Fault(
        "several processes: the highest entropies of a process's own tokens",
        "motet/training/frozen_replays.py",
        "for part in parallel.processes.all_gather(found) for n, entropy",
        "for part in [found] for n, entropy",
        ("tests/distributed/test_replicas.py::test_whatever_looks_at_all_groups_sees_those_of_all_processes",),
    ),
    Fault(
        "several processes: whoever waits does not look for errors of others",
        "motet/distributed/meetings.py",
        "            self.check()\n            waited",
        "            waited",
        ("tests/distributed/test_meetings.py::test_an_error_of_one_ends_the_others_with_its_rank_and_phase",),
    ),
    numerics(
        "biased standard deviation",
        "advantages",
        "degrees = num_valid if population else num_valid - 1",
        "degrees = num_valid",
        "advantages.py::test_grpo_by_hand",
    ),
    numerics(
        "dropped sibling counted as zero",
        "advantages",
        "advantages = rewards - rewards.nanmean(dim=1, keepdim=True)",
        "advantages = rewards - rewards.nan_to_num(0.0).mean(dim=1, keepdim=True)",
        "advantages.py::test_a_dropped_sibling_gets_zero_and_moves_nobody",
    ),
    numerics(
        "KL the other way round",
        "kl",
        "difference = reference_log_probs.detach() - log_probs",
        "difference = log_probs - reference_log_probs.detach()",
        "kl.py::test_by_hand",
    ),
    numerics(
        "a sequence's mean divided by the batch's actions",
        "reductions",
        "counts.clamp(min=1.0)",
        "counts.sum()",
        "reductions.py::test_segment_sum_and_mean_by_hand",
    ),
    Fault(
        "gradients summed in any order",
        "motet/training/optimizer_step.py",
        "deterministic_backward(terms[0].device)",
        'deterministic_backward(torch.device("meta"))',
        ("tests/training/test_optimizer_step.py::test_gradients_are_summed_in_one_order",),
    ),
    Fault(
        "lenient checker: pale shapes pass",
        "motet/shapes/verifier.py",
        "CELL_TOLERANCE = 16.0",
        "CELL_TOLERANCE = 90.0",
        ("tests/shapes/test_verifier.py",),
    ),
    Fault(
        "lenient checker: stray marks drown in the mean",
        "motet/shapes/verifier.py",
        "BLOCK_TOLERANCE = 40.0",
        "BLOCK_TOLERANCE = 400.0",
        ("tests/shapes/test_verifier.py",),
    ),
    Fault(
        "shift by one: each state scores the action that it has already read",
        "motet/policies/generation/replay.py",
        "_predictors(branches, first, [place + 1 for place in first])",
        "_predictors(branches, [place + 1 for place in first], [place + 2 for place in first])",
        ("tests/policies/test_janus.py::test_shared_prefixes_change_neither_log_probs_nor_gradients",),
    ),
    Fault(
        "shift by one behind a shared prefix",
        "motet/policies/generation/replay.py",
        "first = [b.prompt * longest + len(prompts[b.prompt].vectors) - 1 for b in branches]",
        "first = [b.prompt * longest + len(prompts[b.prompt].vectors) - 2 for b in branches]",
        ("tests/policies/test_janus.py::test_shared_prefixes_change_neither_log_probs_nor_gradients",),
    ),
    Fault(
        "text after a picture begins one position early",
        "motet/policies/qwen_vl/adapter.py",
        "following = int(positions.max()) + 1",
        "following = int(positions.max())",
        ("tests/policies/test_vlm.py::test_greedy_text_is_that_of_transformers_generate",),
    ),
    Fault(
        "padding behind a shorter prefix looked at",
        "motet/policies/generation/forward.py",
        "seen = columns < self.lengths[owner].unsqueeze(1) if self.padded else None",
        "seen = None",
        ("tests/policies/test_vlm.py::test_any_batch_replays_alike",),
    ),
    Fault(
        "pictures lost to the first layers of Qwen3-VL",
        "motet/policies/qwen_vl/adapter.py",
        "tuple(deeper)",
        "()",
        ("tests/policies/test_vlm.py::test_texts_replay_as_sampled_and_as_transformers_scores_them",),
    ),
    Fault(
        "appended vectors cut from the gradient",
        "motet/policies/qwen_vl/prefix_cache.py",
        "tail = appended.to(",
        "tail = appended.detach().to(",
        ("tests/policies/test_vlm_learning.py::test_a_frozen_model_still_passes_the_gradient_on",),
    ),
    Fault(
        "queries behind a kept context one position late",
        "motet/policies/qwen_vl/prefix_cache.py",
        "[prefix.next_position for",
        "[prefix.next_position + 1 for",
        ("tests/policies/test_unified.py::test_what_a_frozen_reader_keeps_gives_the_same_drawings_and_gradients",),
    ),
    Fault(
        "top-k left on in sampling",
        "motet/policies/generation/decode_loop.py",
        "drawn = scoring_logits(mixture, **sampling.scoring)",
        "drawn = scoring_logits(mixture, **{**sampling.scoring, 'top_k': sampling.top_k or 50})",
        ("tests/policies/test_janus.py::test_nothing_truncates_by_default",),
    ),
    Fault(
        "guidance ignored at replay",
        "motet/policies/generation/replay.py",
        "guidance_scale=sampling.guidance_scale",
        "guidance_scale=1.0",
        ("tests/policies/test_janus.py::test_images_replay_as_sampled_and_as_transformers_scores_them",),
    ),
    Fault(
        "lambda of the unified advantage lost",
        "motet/training/advantages.py",
        'weight = float(weights.abs().max()) if mode == "summed" else 1.0',
        "weight = 1.0",
        ("tests/training/test_advantages.py::test_summed",),
    ),
    Fault(
        "denominator shrinks to the acts with an advantage",
        "motet/training/policy_update.py",
        "counts=counts,",
        "counts=None,",
        ("tests/training/test_optimizer_step.py::test_acts_without_advantage_are_not_replayed_and_change_nothing",),
    ),
    Fault(
        "tracks on the same rows share their noise",
        "motet/training/rollout.py",
        "(seed, step, track) if track else (seed, step)",
        "(seed, step)",
        (
            "tests/experiments/test_tracks.py::test_tracks_on_the_same_rows_do_not_share_noise",
            "tests/experiments/test_tracks.py::test_sft_targets_of_tracks_on_the_same_rows_do_not_share_noise",
        ),
    ),
    Fault(
        "conditional guidance of denoising scores the mixture",
        "motet/policies/diffusion/guidance.py",
        "return self.scored or self",
        "return self",
        (
            "tests/training/test_flow_learning.py::test_conditional_guidance_samples_the_mixture_and_scores_the_condition",
        ),
    ),
    Fault(
        "null branch of denoising with the wrong sign",
        "motet/policies/diffusion/guidance.py",
        "(scale, 1 - scale)",
        "(scale, scale - 1)",
        ("tests/training/test_flow_learning.py::test_weights_of_branches",),
    ),
    Fault(
        "denoising steps replayed at the next step's sigma",
        "motet/policies/diffusion/replay.py",
        "act.times[:-1][taken], act.times[1:][taken]",
        "act.times[1:][taken], act.times[1:][taken]",
        ("tests/training/test_denoising.py::test_replay_equals_sampling_and_the_ratio_is_one",),
    ),
    Fault(
        "flow matching towards the picture instead of the noise",
        "motet/numerics/flow/path.py",
        "at_least_float32(noise) - at_least_float32(clean)",
        "at_least_float32(clean) - at_least_float32(noise)",
        (
            "tests/training/test_flow_learning.py::test_the_likelihood_of_a_demonstration_is_minus_its_flow_matching_loss",
        ),
    ),
    Fault(
        "drawings conditioned by the queries of edits",
        "motet/policies/unified/conditioner.py",
        'bool(one.sources) == (task == "edit")',
        'bool(one.sources) != (task == "edit")',
        ("tests/policies/test_unified.py::test_conditions_equal_a_naive_reading",),
    ),
    Fault(
        "a stage starts from the base, not from the stage before it",
        "motet/config/stage_builder.py",
        "start = checkpoint_of(self.stages[config.init_from[0]], self.output) if config.init_from else None",
        "start = None",
        ("tests/experiments/test_stages.py::test_a_plan_is_loaded",),
    ),
    Fault(
        "interval without the square root of n",
        "motet/numerics/statistics.py",
        "statistics.stdev(values) / math.sqrt(len(values))",
        "statistics.stdev(values)",
        ("tests/numerics/test_statistics.py",),
    ),
    Fault(
        "two acts of a trajectory share their noise",
        "motet/training/rollout.py",
        "len(self.acts) + number)",
        "number)",
        ("tests/training/test_rollout.py::test_noise_is_named_by_seed_step_task_sibling_and_act",),
    ),
    Fault(
        "acts handed to the wrong programs",
        "motet/training/rollout.py",
        "zip(batch, acts, strict=True)",
        "zip(batch, acts[::-1], strict=True)",
        ("tests/training/test_rollout.py::test_each_program_receives_its_own_act",),
    ),
    Fault(
        "NaN reward kept",
        "motet/rewards/scoring.py",
        "if value is None or math.isfinite(value):",
        "if True:",
        ("tests/rewards/test_scoring.py::test_a_value_that_is_not_finite_drops_its_trajectory",),
    ),
    Fault(
        "two claimed letters pass",
        "motet/rewards/text/choice_parsing.py",
        "_claims(text, options) | chosen <= {letter}",
        "True",
        ("tests/rewards/text/test_multiple_choice.py::test_chosen_letter",),
    ),
    Fault(
        "sampled in parts, each with the first part's contexts",
        "motet/policies/generation/policy.py",
        "encodings[n : n + size], sampling, num_actions)",
        "encodings[:size][: len(requests[n : n + size])], sampling, num_actions)",
        ("tests/policies/test_janus.py::test_sampling_in_parts_changes_no_sample",),
    ),
    Fault(
        "gold answers keep their tags",
        "motet/rewards/text/gold_check.py",
        "texts = [extract_answer(str(one)) or str(one) for one in golds]",
        "texts = [str(one) for one in golds]",
        ("tests/recipes/test_corl_data.py::test_gold_options_and_type_come_from_the_columns",),
    ),
    Fault(
        "the caption that covers least",
        "motet/curation/pairing.py",
        "best = max(",
        "best = min(",
        ("tests/curation/test_pairing.py::test_the_caption_that_covers_most_is_taken",),
    ),
    Fault(
        "an option's letter is covered, not its words",
        "motet/curation/pairing.py",
        "return answer if letter is None else",
        "return answer if True else",
        ("tests/curation/test_pairing.py::test_an_option_is_covered_by_its_words",),
    ),
    Fault(
        "the first row's exclusions for all",
        "motet/rewards/image/gen_eval.py",
        "excluded[place]",
        "excluded[0]",
        ("tests/rewards/image/test_gen_eval.py::test_every_row_has_its_own_exclusions",),
    ),
    Fault(
        "AdamW without its betas",
        "motet/training/optimizer_step.py",
        "betas=config.betas, ",
        "",
        ("tests/training/test_optimizer_step.py::test_adamw_takes_its_betas_and_its_weight_decay",),
    ),
    Fault(
        "AdamW without its weight decay",
        "motet/training/optimizer_step.py",
        "weight_decay=config.weight_decay",
        "weight_decay=0.0",
        ("tests/training/test_optimizer_step.py::test_adamw_takes_its_betas_and_its_weight_decay",),
    ),
    Fault(
        "the schedule's shift ignored",
        "motet/policies/diffusion/generator.py",
        "self.shape, sampling.shift)",
        "self.shape, None)",
        ("tests/policies/test_unified.py::test_a_drawing_walks_the_schedule_of_its_shift",),
    ),
    Fault(
        "optimizer moments left out of a checkpoint",
        "motet/training/learner_state.py",
        "{_WEIGHT: parameter, **optimizer.adamw.state.get(parameter, {})}",
        "{_WEIGHT: parameter}",
        ("tests/training/test_trainer.py::test_two_steps_and_two_more_are_four",),
    ),
    Fault(
        "a resumed run starts its data from the beginning",
        "motet/data/sampler.py",
        'self.num_consumed = int(state["drawn"])',
        "self.num_consumed = 0",
        ("tests/data/test_sampler.py::test_resumed_equals_uninterrupted",),
    ),
    Fault(
        "every epoch in the same order",
        "motet/data/sampler.py",
        'random.Random(f"motet {self.seed} {epoch}")',
        'random.Random(f"motet {self.seed}")',
        ("tests/data/test_sampler.py::test_every_epoch_meets_every_row_once_in_another_order",),
    ),
    Fault(
        "LoRA delta subtracted when it is merged",
        "motet/policies/diffusion/models/lora.py",
        "value.float() + layers[layer]",
        "value.float() - layers[layer]",
        ("tests/policies/diffusion/test_pipelines.py::test_adapters_train_alone_and_are_their_own_reference",),
    ),
    Fault(
        "NFT prefers the bad images",
        "motet/training/losses/nft.py",
        "0.5 + 0.5 * (advantages / max_advantage)",
        "0.5 - 0.5 * (advantages / max_advantage)",
        ("tests/training/losses/test_nft.py::test_optimality_by_hand",),
    ),
    Fault(
        "NFT's implicit policies swapped",
        "motet/training/losses/nft.py",
        "return old + step, old - step",
        "return old - step, old + step",
        ("tests/training/losses/test_nft.py::test_by_hand",),
    ),
    Fault(
        "GRPO-Guard's ratio without its normaliser",
        "motet/training/losses/grpo_guard.py",
        "(x_next.detach().to(mean) - old)) / std.to(mean)",
        "(x_next.detach().to(mean) - old)) / std.to(mean) ** 2",
        ("tests/training/losses/test_grpo_guard.py::test_it_is_the_published_formula",),
    ),
    Fault(
        "GRPO-Guard's steps weighted the other way",
        "motet/training/losses/grpo_guard.py",
        "torch.reciprocal(sigma - sigma_next)",
        "(sigma - sigma_next)",
        ("tests/training/losses/test_grpo_guard.py::test_weighted_steps_pull_equally",),
    ),
    Fault(
        "unknown keys of a recipe ignored",
        "motet/config/section.py",
        'extra="forbid"',
        'extra="ignore"',
        ("tests/config/test_load.py::test_an_unknown_key_is_refused_with_what_was_meant",),
    ),
    Fault(
        "impossible sampling settings accepted",
        "motet/core/sampling.py",
        "if value is None:",
        "if True:",
        ("tests/test_check_policy.py::test_impossible_settings_raise",),
    ),
    Fault(
        "reference of sharded weights swapped where nobody gathers from",
        "motet/policies/trainable.py",
        "if is_sharded(parameter):  # in place",
        "if False:  # in place",
        ("tests/distributed/test_fully_sharded.py::test_the_reference_of_sharded_weights_answers_with_its_own",),
    ),
    Fault(
        "each process decides alone whether to share prompts",
        "motet/policies/generation/replay.py",
        "return all(shares_of) and len({*continues_of}) == 1",
        "return shares",
        ("tests/distributed/test_fully_sharded.py::test_prompts_are_shared_where_all_processes_share_them",),
    ),
    Fault(
        "a denoiser runs as often as its own acts need",
        "motet/policies/diffusion/models/common.py",
        "max(from_all_processes(len(groups))) - len(groups)",
        "0",
        ("tests/distributed/test_fully_sharded.py::test_a_denoiser_runs_as_often_as_in_the_process_with_most_shapes",),
    ),
    Fault(
        "parameters that this process does not use have no gradient",
        "motet/distributed/fully_sharded.py",
        "if missing or not reached else",
        "if not reached else",
        ("tests/distributed/test_fully_sharded.py::test_a_parameter_that_only_another_process_uses_takes_part",),
    ),
    Fault(
        "gradient clipped by the norm of one process",
        "motet/distributed/fully_sharded.py",
        "self.processes.all_reduce_([square])",
        "pass",
        ("tests/distributed/test_fully_sharded.py::test_the_norm_is_that_of_all_shards",),
    ),
    Fault(
        "processes with fewer micro-batches stop early",
        "motet/distributed/passes.py",
        "passes += [([filler], None)] * (",
        "passes += [] * (",
        (
            "tests/distributed/test_fully_sharded.py::test_micro_batches_are_the_same_kinds_in_the_same_number_everywhere",
        ),
    ),
)


def copy_tree(target: Path) -> None:
    for name in ("motet", "tests", "recipes", "examples", "scripts", "docs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target / name)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status (0 passed, 1 a test failed) and its last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def plant(fault: Fault) -> str | None:
    """None when the fault is caught, else what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        path = tree / fault.file
        source = path.read_text(encoding="utf-8")
        if source.count(fault.search) != 1:
            return f"its place occurs {source.count(fault.search)} times in {fault.file}: bring the fault up to date"
        path.write_text(source.replace(fault.search, fault.replace), encoding="utf-8")
        status, last = run_tests(tree, fault.tests)
    if status == 1:
        return None
    return "it survived" if status == 0 else f"pytest could not run its tests (exit {status}): {last}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", help="only faults whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if arguments.name in fault.name]
    status, last = run_tests(ROOT, tuple(dict.fromkeys(test for fault in chosen for test in fault.tests)))
    if status != 0:
        sys.exit(f"without any fault the tests must pass: {last}")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(pool.map(plant, chosen))
    for fault, outcome in zip(chosen, outcomes, strict=True):
        print(
            f"{'caught  ' if outcome is None else 'SURVIVED'}  {fault.name}{'' if outcome is None else ': ' + outcome}"
        )
    failed = sum(outcome is not None for outcome in outcomes)
    print(f"{len(chosen) - failed} of {len(chosen)} planted faults were caught")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
