"""What the tests of planted faults share: a fault with what must find it, and small runs to plant it in."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from motet.config import parse_recipe
from motet.core.errors import MotetError
from motet.preflight.findings import PreflightReport
from motet.preflight.running import run
from motet.training.engines import LOCAL, Engines
from motet.training.setup import TrainingSetup, setup_rl, setup_sft
from tests.runs import REWARDS, mapping

Outcome = Literal["stopped", "flagged"]
FLOW = f"{Path(__file__).parent / 'flow_policy.py'}:flow_policy"


@dataclass(frozen=True)
class Fault:
    """A planted fault: what it is, the check or the error that names it, and whether a run starts with it.

    `by` says what finds it: the preflight, the setup of the run, its resume, or the run itself.
    """

    title: str
    found_as: str
    outcome: Outcome
    by: str
    plant: Callable[["World"], "PreflightReport | None"]

    def row(self) -> tuple[str, str, str, str]:
        """As the table in docs/how-to/preflight.md has it."""
        return self.title, f"`{self.found_as}`", self.outcome, self.by


FAULTS: list[Fault] = []


def fault(title: str, found_as: str, outcome: Outcome, by: str = "preflight") -> Callable[[Any], Any]:
    """Register a function that plants a fault and returns the report, or raises what the existing machinery raises."""

    def register(plant: Callable[["World"], "PreflightReport | None"]) -> Any:
        FAULTS.append(Fault(title, found_as, outcome, by, plant))
        return plant

    return register


def check_fault(one: Fault, world: "World") -> None:
    """The fault is found under its name and with its outcome, by nothing before it."""
    if one.by != "preflight":
        with pytest.raises(MotetError) as caught:
            one.plant(world)
        assert type(caught.value).__name__ == one.found_as
        assert caught.value.fix
        return
    report = one.plant(world)
    assert report is not None
    found = {result.name: result for result in report.results if result.findings}
    assert one.found_as in found, report.results
    assert found[one.found_as].outcome == {"stopped": "stop", "flagged": "warn"}[one.outcome]
    for finding in found[one.found_as].findings:
        assert finding.problem and finding.cause and finding.fix.endswith(".")
        assert finding.cause != "the check itself raised"


@dataclass
class World:
    """Small runs, and pytest's tools. Sessions are shared: undo through `patch` what is planted in one."""

    checkpoint: Path
    folder: Path
    patch: pytest.MonkeyPatch
    sessions: dict[str, TrainingSetup] = field(default_factory=dict)

    def fresh(self, **changes: Any) -> TrainingSetup:
        """A run of the tiny Janus that nothing else uses."""
        return setup_rl(parse_recipe(mapping(self.checkpoint, **changes)))

    def session(self, **changes: Any) -> TrainingSetup:
        """A run of the tiny Janus, set up once for all tests of a file."""
        key = json.dumps(changes, sort_keys=True, default=str)
        if key not in self.sessions:
            self.sessions[key] = self.fresh(**changes)
        return self.sessions[key]

    def flow(self) -> TrainingSetup:
        """A run of a policy that denoises."""
        settings = {"policy": {"path": FLOW}, "scenario": "text_to_image", "sampling": {"denoising": {"num_steps": 5}}}
        return self.session(**settings, rewards=[{"name": f"{REWARDS}reddish"}])

    def answers(self, rows: list[dict[str, Any]], data: dict[str, Any] | None = None, **changes: Any) -> TrainingSetup:
        """A run that answers questions of a file with these rows."""
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        changes = {"rewards": [{"name": "exact_answer"}], **changes}
        content = mapping(self.checkpoint, scenario="answer", **changes)
        content["algorithm"] = {"num_generations": 2}
        return setup_rl(parse_recipe({**content, "data": {"source": str(path), **(data or {})}}))

    def sft(self, rows: list[dict[str, Any]] | None = None, **data: Any) -> TrainingSetup:
        """A supervised run on answers of a file with these rows; `data`: its section, beside the source."""
        path = self.folder / "sft.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS), encoding="utf-8")
        scenario = data.pop("scenario", "answer")
        content = mapping(self.checkpoint, scenario=scenario, rewards=None, algorithm=None)
        algorithm = {"loss": "dpo"} if "rejected" in data else {}
        section = {"source": str(path), "targets": {"answer": "answer"}, **data}
        return setup_sft(parse_recipe({**content, "algorithm": algorithm, "data": section}))

    def sft_policy(self) -> TrainingSetup:
        """A supervised run on questions of the shapes world, set up once for all tests of a file."""
        if "sft" not in self.sessions:
            changes = {"scenario": "answer", "rewards": None, "algorithm": None}
            content = mapping(self.checkpoint, data={"targets": {"answer": "solution"}}, **changes)
            self.sessions["sft"] = setup_sft(parse_recipe(content))
        return self.sessions["sft"]

    def check(self, session: TrainingSetup, engines: Engines = LOCAL) -> PreflightReport:
        """The report on a run."""
        return run(session, engines, self.folder)

    def rescored(self, session: TrainingSetup, change: Callable[[Any], Any]) -> PreflightReport:
        """The report where the log-probs of replays are changed."""
        replay = session.policy.replay

        def rescore(acts: Any, needs: Any = ()) -> list[Any]:
            return [replace(one, log_probs=change(one.log_probs)) for one in replay(acts, needs)]

        self.patch.setattr(session.policy, "replay", rescore)
        return self.check(session)

    def replayed_otherwise(self, session: TrainingSetup, change: Callable[[Any], Any]) -> PreflightReport:
        """The report where `replay` is given changed acts."""
        replay = session.policy.replay
        self.patch.setattr(session.policy, "replay", lambda acts, needs=(): replay([change(a) for a in acts], needs))
        return self.check(session)

    def sampled_otherwise(self, session: TrainingSetup, change: Callable[[Any], Any]) -> PreflightReport:
        """The report where acts are changed after they were sampled."""
        act = session.policy.act
        self.patch.setattr(session.policy, "act", lambda requests, s: [change(one) for one in act(requests, s)])
        return self.check(session)


def with_sampling(**changes: Any) -> Callable[[Any], Any]:
    """Changes fields of an act's sampling."""
    return lambda act: replace(act, sampling=replace(act.sampling, **changes))


ROWS = [{"question": f"what is {n} plus {n}?", "answer": str(2 * n)} for n in range(12)]
