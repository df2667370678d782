"""Clauses of `replay`, `encode_targets` and `num_tokens`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from motet.core.conversation import user
from motet.core.errors import MotetError
from motet.testing.clauses.base import Clause
from motet.testing.examples import Examples, NotChecked, largest_difference
from motet.testing.report import Violation


def sampled_is_replayed(examples: Examples) -> Iterator[Violation]:
    """Log-probs at replay are those at sampling (invariant 1), in batches of other sizes and another order too."""
    for kind in examples.kinds:
        for name, (_, acts) in examples.supported(kind).items():
            sampled = [act.log_probs for act in acts if act.log_probs is not None]
            for size in (len(acts), 1, 3):
                yield from _differs(
                    examples, f"{kind}/{name}, {size} per call", examples.log_probs(acts, size), sampled
                )
            turned = examples.log_probs(acts[::-1])[::-1]
            yield from _differs(examples, f"{kind}/{name}, in reverse order", turned, sampled)


def _differs(
    examples: Examples, where: str, replayed: list[torch.Tensor], sampled: list[torch.Tensor]
) -> Iterator[Violation]:
    difference = largest_difference(replayed, sampled)
    if difference > examples.tolerance:
        yield Violation(
            f"{where}: replayed log-probs differ from the sampled ones by up to {difference:.3g}; the bound is "
            f"{examples.tolerance:g}.",
            "score the act's own sampling settings at replay, each action from the state before it, and mask padding.",
        )


def kinds_replay_together(examples: Examples) -> Iterator[Violation]:
    """Acts of all kinds and settings replay in one call as they do apart, in the acts' order."""
    acts = [act for kind in examples.kinds for _, own in examples.supported(kind).values() for act in own[::2]]
    mixed = acts[1::2] + acts[::2]
    together = examples.log_probs(mixed)
    yield from _differs(
        examples, f"{len(mixed)} acts of all kinds and settings", together, examples.log_probs(mixed, 1)
    )


def extras_are_what_was_asked(examples: Examples) -> Iterator[Violation]:
    """`replay` returns no extras unless asked, those asked for by name, and skips names that it does not know."""
    asked = ("entropy", "mean", "std", "a name that nothing has")
    for kind in examples.kinds:
        acts = examples.act(kind)
        plain, with_extras = examples.replay(acts), examples.replay(acts, needs=asked)
        if any(replay.extras for replay in plain):
            yield Violation(
                f"{kind}: replay(acts) returned extras {sorted(plain[0].extras)}.",
                "return what `needs` names, no more.",
            )
        unasked = {name for replay in with_extras for name in replay.extras} - set(asked[:-1])
        if unasked:
            yield Violation(f"{kind}: replay returned {sorted(unasked)}.", "return only extras that `needs` names.")
        for act, replay in zip(acts, with_extras, strict=True):
            entropy = replay.extras.get("entropy")
            if entropy is not None and tuple(entropy.shape) != (act.num_actions,):
                yield Violation(
                    f"{kind}: extras['entropy'] has shape {tuple(entropy.shape)}; the act has {act.num_actions} "
                    "actions.",
                    "return one entropy for each action.",
                )
        yield from _differs(
            examples,
            f"{kind}, with extras and without",
            [replay.log_probs.detach().cpu() for replay in with_extras],
            [replay.log_probs.detach().cpu() for replay in plain],
        )


def targets_replay(examples: Examples) -> Iterator[Violation]:
    """Acts of a dataset's targets have no log-probs of their own, keep their order, and replay in any batch."""
    checked = False
    for kind in examples.kinds:
        try:
            acts = examples.encode_targets(kind)
        except MotetError:
            continue  # for reinforcement learning alone
        checked = True
        given = [act for act in acts if act.log_probs is not None]
        if given:
            yield Violation(f"{kind}: a target's act has log_probs.", "set log_probs to None: nothing was sampled.")
        wrong = [act.kind for act in acts if act.kind != kind] or [act for act in acts if not act.num_actions]
        if wrong:
            yield Violation(f"{kind}: encode_targets returned {wrong!r}.", "return one act of the request's kind each.")
        for act, target in zip(acts, examples.some_targets(kind), strict=True):
            if kind == "text" and getattr(act, "text", target) != target:
                yield Violation(f"The act of {target!r} holds the text {act.text!r}.", "encode the target itself.")  # type: ignore[attr-defined]
        together = examples.log_probs(acts)
        if not all(bool(values.isfinite().all()) for values in together):
            yield Violation(f"{kind}: log-probs of targets are not finite.", "score every action of the target.")
        yield from _differs(examples, f"targets of kind {kind}, one per call", together, examples.log_probs(acts, 1))
    if not checked:
        raise NotChecked("encode_targets rejects targets of all kinds.")


def dropped_prompts_do_not_count(examples: Examples) -> Iterator[Violation]:
    """The log-prob of an image's target with `drop_prompt` does not depend on the prompt, only on its length."""
    checked = False
    for kind in [kind for kind in examples.kinds if kind != "text"]:
        if any(context.images for context in examples.contexts[kind]):
            continue
        plain, *dropped = [
            replace(examples.requests(kind)[0], context=user(prompt), drop_prompt=drop)
            for prompt, drop in (("a red circle", False), ("a red circle", True), ("a circle red", True))
        ]
        target = examples.some_targets(kind)[0]
        try:
            acts = examples.policy.encode_targets([plain, *dropped], [target] * 3)
        except MotetError:
            continue
        checked = True
        with_prompt, first, second = examples.log_probs(acts, 1)
        yield from _differs(examples, f"{kind}: a target without its prompt, of two prompts", [first], [second])
        if torch.equal(with_prompt, first):
            yield Violation(
                f"{kind}: the log-probs of a target are the same with and without its prompt.",
                "condition on the prompt, and encode the unconditional branch for drop_prompt.",
            )
    if not checked:
        raise NotChecked("no kind encodes targets of images in contexts without images.")


def num_tokens_is_positive(examples: Examples) -> Iterator[Violation]:
    """`num_tokens` is a whole number, at least the act's number of actions, and does not depend on the batch."""
    for kind in examples.kinds:
        for act in examples.act(kind):
            count = examples.policy.num_tokens(act)
            if not isinstance(count, int) or count < max(1, act.num_actions):
                yield Violation(
                    f"num_tokens of a {kind} act of {act.num_actions} actions is {count!r}.",
                    "return the int number of tokens that its replay computes: micro-batches are budgeted by it.",
                )
                break


REPLAYING = (
    Clause("sampled log-probs are replayed", sampled_is_replayed),
    Clause("acts of all kinds replay together", kinds_replay_together),
    Clause("extras are what was asked for", extras_are_what_was_asked),
    Clause("targets replay", targets_replay),
    Clause("dropped prompts do not count", dropped_prompts_do_not_count),
    Clause("num_tokens is positive", num_tokens_is_positive),
)
