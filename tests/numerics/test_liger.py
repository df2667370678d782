"""What goes through Liger's kernel, with a module in its place that has the same signature and runs on a CPU."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from motet.core.errors import ConfigError
from motet.numerics import liger
from motet.numerics.logprobs import hidden_log_probs
from motet.policies.liger_choice import describe_liger

ROWS, D, V = 7, 8, 30
GPU = torch.device("cuda", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """liger-kernel 0.8.5 is installed, and tensors say that they are on a GPU; the arguments of every call."""
    seen: list[dict[str, Any]] = []

    def liger_fused_linear_cross_entropy(
        input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, ce_weight: Tensor | None = None,
        ignore_index: int = -100, lse_square_scale: float = 0.0, label_smoothing: float = 0.0,
        reduction: str = "mean", softcap: float | None = None, return_z_loss: bool = False,
        accum_dtype: torch.dtype | None = None, use_token_scaling: bool = False, return_token_accuracy: bool = False,
        return_predicted_tokens: bool = False, chunk_mem_const: int = 1,
    ) -> Tensor:  # fmt: skip
        seen.append({"input": input, "weight": weight, "accum_dtype": accum_dtype})
        logits = nn.functional.linear(input, weight, bias).float()
        return nn.functional.cross_entropy(logits, target, reduction=reduction)

    module = ModuleType("functional")
    module.liger_fused_linear_cross_entropy = liger_fused_linear_cross_entropy  # type: ignore[attr-defined]
    monkeypatch.setattr(liger, "import_module", {"liger_kernel.transformers.functional": module}.__getitem__)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: True))
    install(monkeypatch, "0.8.5")
    return seen


def install(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    for module in ("motet.numerics.liger", "motet.policies.liger_choice"):
        monkeypatch.setattr(f"{module}.installed_version", lambda: version)


def states(bias: bool = False) -> tuple[Tensor, nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(5)
    head = nn.Linear(D, V, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(ROWS, D, generator=generator).requires_grad_()
    return hidden, head, torch.randint(0, V, (ROWS,), generator=generator)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_gradients_are_the_same(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, temperature: float, bias: bool
) -> None:
    hidden, head, actions = states(bias)
    slopes = torch.randn(ROWS, generator=torch.Generator().manual_seed(6))
    results: list[list[Tensor]] = []
    for variable in ("1", "0"):
        monkeypatch.setenv("MOTET_LIGER", variable)
        log_probs, entropies = hidden_log_probs(hidden, head, actions, temperature=temperature)
        assert entropies is None
        results.append([log_probs, *torch.autograd.grad((slopes * log_probs).sum(), [hidden, *head.parameters()])])
    assert len(calls) == 1 and calls[0]["accum_dtype"] == torch.float32
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_under_autocast_the_head_is_given_in_its_type(calls: list[dict[str, Any]]) -> None:
    hidden, head, actions = states()
    with torch.autocast("cpu", torch.bfloat16):
        log_probs, _ = hidden_log_probs(hidden, head, actions)
    log_probs.sum().backward()
    assert calls[0]["input"].dtype == calls[0]["weight"].dtype == torch.bfloat16 != log_probs.dtype
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "options", [{"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"with_entropy": True}, {"guidance_scale": 3.0}], ids=str
)
def test_what_it_does_not_compute_goes_through_chunks(calls: list[dict[str, Any]], options: dict[str, Any]) -> None:
    hidden, head, actions = states()
    own = options | ({"unconditional": torch.zeros_like(hidden)} if "guidance_scale" in options else {})
    hidden_log_probs(hidden, head, actions, **own)
    hidden_log_probs(hidden, nn.Sequential(head), actions)
    hidden_log_probs(hidden[:0], head, actions[:0])
    assert not calls


def test_a_version_with_wrong_gradients_is_not_used(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("0.8.1", "0.7.0", None):
        install(monkeypatch, version)
        hidden_log_probs(*states())
    assert not calls
    install(monkeypatch, "0.8.2")
    hidden_log_probs(*states())
    assert len(calls) == 1


def test_the_choice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for version, variable in (("0.8.5", ""), ("0.8.5", "0"), ("0.7.0", ""), (None, "")):
        install(monkeypatch, version)
        monkeypatch.setenv("MOTET_LIGER", variable)
        said.append(describe_liger(GPU))
        assert describe_liger(torch.device("cpu")) == ""
    assert said == [
        "Log-probs without entropy by liger-kernel 0.8.5, the others in chunks.",
        "Log-probs in chunks.",
        "Log-probs in chunks: liger-kernel 0.7.0 is older than 0.8.2.",
        "Log-probs in chunks.",
    ]


@pytest.mark.parametrize(
    ("version", "variable", "device", "message"),
    [
        (None, "1", GPU, r"MOTET_LIGER=1, but liger-kernel is not installed\. Fix: pip install 'motet\[liger\]'"),
        ("0.7.0", "1", GPU, r"liger-kernel 0\.7\.0 is older than 0\.8\.2"),
        ("0.8.5", "1", torch.device("cpu"), r"needs a GPU, and policy\.device is cpu"),
        ("0.8.5", "yes", GPU, r"MOTET_LIGER='yes' must be 0 or 1"),
    ],
)
def test_asking_for_what_cannot_be_had_is_an_error(
    monkeypatch: pytest.MonkeyPatch, version: str | None, variable: str, device: torch.device, message: str
) -> None:
    install(monkeypatch, version)
    monkeypatch.setenv("MOTET_LIGER", variable)
    with pytest.raises(ConfigError, match=message):
        describe_liger(device)
