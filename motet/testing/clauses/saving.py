"""The clause of `save`: what is loaded again is the same policy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from motet.testing.clauses.base import Clause
from motet.testing.clauses.training import updated
from motet.testing.examples import Examples, NotChecked, largest_difference, same_actions
from motet.testing.report import Violation


def saved_is_loaded(examples: Examples) -> Iterator[Violation]:
    """A trained policy that was saved and loaded has the same kinds, log-probs and samples."""
    if examples.load is None:
        raise NotChecked("pass load=, a function from the saved folder to a policy.")
    with tempfile.TemporaryDirectory() as folder, updated(examples):
        policy, target = examples.policy, Path(folder) / "new" / "checkpoint"
        policy.save(target)
        loaded = examples.load(target)
        if set(loaded.kinds) != set(policy.kinds):
            yield Violation(
                f"The loaded policy performs {sorted(loaded.kinds)}, the saved one {sorted(policy.kinds)}.",
                "save everything that the kinds depend on.",
            )
            return
        for kind in examples.kinds:
            acts = examples.act(kind)
            theirs = [replay.log_probs.detach().cpu() for replay in loaded.replay(acts)]
            difference = largest_difference(theirs, examples.log_probs(acts))
            if difference > examples.tolerance:
                yield Violation(
                    f"{kind}: log-probs of the loaded policy differ from those of the saved one by up to "
                    f"{difference:.3g}.",
                    "save and load every trainable parameter, and whatever else log-probs depend on.",
                )
            again = loaded.act(examples.requests(kind), examples.plain(kind))
            differ = [n for n, (a, b) in enumerate(zip(acts, again, strict=True)) if not same_actions(a, b, 1e-4)]
            if differ:
                yield Violation(
                    f"{kind}: {len(differ)} of {len(acts)} samples of the loaded policy differ from those of the saved "
                    "one with the same keys.",
                    "save the tokenizer, the schedule and whatever else sampling depends on.",
                )


SAVING = (Clause("saved is loaded", saved_is_loaded),)
