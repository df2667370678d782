"""The command `motet serve-rewards` under load, with rewards in processes of their own, and under a fuzzer."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.service import config, serving

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_nothing_is_lost_or_wrong_under_stress() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "stress_rewards.py"), "--clients", "32", "--seconds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for outcome in (
        "die: 503",
        "hang: 504",
        "restarting: 503",
        "truncated PNG: 200",
        "oversized image: 413",
        "raise: 200",
    ):
        assert outcome in done.stdout


@pytest.mark.slow
def test_fuzzed_requests_get_no_500_and_only_what_the_description_says() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    run = settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    run = settings(run, suppress_health_check=list(HealthCheck))
    statuses: set[int] = set()

    def send(case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("completions"), list) and "prompts" in case.body:
            case.body["prompts"] = case.body["completions"]  # as many: JSON schemas cannot ask for that
        statuses.add(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)

    with serving(config({"name": "tests.serving.served_rewards:by_text"})) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in schemathesis.GenerationMode:
                if mode is schemathesis.GenerationMode.NEGATIVE and operation.method != "post":
                    continue  # without parameters, nothing can be wrong
                run(given(case=operation.as_strategy(generation_mode=mode))(send))()
    assert {200, 422} <= statuses and 500 not in statuses, statuses
