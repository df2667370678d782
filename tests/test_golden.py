"""Short training runs give the numbers that scripts/golden.py recorded, and the comparison sees what differs."""

import copy
import json

import pytest

from scripts import golden

RUN = {
    "metrics": {"loss": [0.5, 0.25, 1e-9, 2.0], "grad_norm": [1.0, "absent", 3.0, None]},
    "weights": {"step_000004": {"named": "a", "contents": "b"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.cases())
def test_runs_give_the_recorded_numbers(name: str) -> None:
    outcome = golden.check(name)
    print(f"{name}: {outcome.values} values, {outcome.comparison}")
    assert not outcome.differences, f"compared {outcome.comparison}:\n" + "\n".join(outcome.differences)


def test_every_recorded_case_is_defined() -> None:
    assert {path.stem for path in golden.GOLDEN.glob("*.json")} == set(golden.cases())


@pytest.mark.parametrize(
    ("key", "step", "value", "exact", "equal"),
    [
        ("loss", 1, 0.25001, True, False),
        ("loss", 1, 0.25001, False, True),
        ("loss", 1, 0.251, False, False),
        ("loss", 2, 2e-9, False, True),  # rounding noise near zero
        ("loss", 3, 5.0, True, False),
        ("loss", 3, 5.0, False, True),  # later than the tolerant comparison looks
        ("grad_norm", 1, 1.0, False, False),
        ("grad_norm", 3, "absent", True, False),
    ],
)
def test_a_changed_metric(key: str, step: int, value: object, exact: bool, equal: bool) -> None:
    found = copy.deepcopy(RUN)
    found["metrics"][key][step] = value
    values, differences = golden.compare({".": RUN}, {".": found}, exact=exact)
    assert values == (10 if exact else 6)
    assert bool(differences) is not equal
    assert all(f"step {step + 1}: {key} is {value!r}" in line for line in differences)


def test_changed_weights_names_and_steps() -> None:
    def differences(change) -> str:
        found = copy.deepcopy(RUN)
        change(found)
        return "\n".join(golden.compare({".": RUN}, {".": found}, exact=True)[1])

    assert not differences(lambda run: None)
    assert "weights differ" in differences(lambda run: run["weights"]["step_000004"].update(named="c", contents="c"))
    assert "contents are equal" in differences(lambda run: run["weights"]["step_000004"].update(named="c"))
    assert "loss is missing" in differences(lambda run: run["metrics"].pop("loss"))
    assert "kl is new" in differences(lambda run: run["metrics"].update(kl=[0.0] * 4))
    assert "4 steps are recorded, 3 were run" in differences(lambda run: run["metrics"]["loss"].pop())


def test_digests_see_bits_names_and_not_the_optimizer(tmp_path) -> None:
    import torch
    from safetensors.torch import save_file

    def digest(**named: torch.Tensor) -> dict[str, str]:
        save_file(named, tmp_path / "model.safetensors")
        return golden.digests(tmp_path)

    one, two = torch.zeros(2), torch.ones(2, 3)
    first = digest(a=one, b=two)
    save_file({"moments": one}, tmp_path / "learner.safetensors")
    assert digest(b=two, a=one) == first
    renamed, reshaped = digest(a=one, c=two), digest(a=one, b=two.reshape(3, 2))
    assert renamed["contents"] == first["contents"] and renamed["named"] != first["named"]
    assert reshaped["contents"] != first["contents"]
    assert digest(a=torch.tensor([0.0, 1e-45]), b=two)["contents"] != first["contents"]


def test_all_json_is_small() -> None:
    sizes = [path.stat().st_size for path in golden.GOLDEN.glob("*.json")]
    assert max(sizes) < 60_000 and sum(sizes) < 400_000
    assert all(json.loads(path.read_text())["runs"] for path in golden.GOLDEN.glob("*.json"))
