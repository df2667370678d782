"""LoRA: adapters alone train, sampling merges them, and a saved adapter is an ordinary peft folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motet.config import LoraConfig, PolicyConfig
from motet.core.errors import CheckpointError, ConfigError
from motet.core.trajectory import Act
from motet.policies import load_policy
from motet.policies.janus import JanusPolicy
from motet.weights.hf_output import suppress_hf_output

peft = pytest.importorskip("peft")

ATOL = 1e-4
LORA = LoraConfig(rank=4, alpha=8.0)


def disturb(policy: JanusPolicy) -> None:
    """A training step's worth of change, and a large one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    policy.version += 1


def distance(policy: JanusPolicy, acts: list[Act]) -> float:
    """Between sampled and replayed log-probs."""
    pairs = zip(policy.log_probs(acts), acts, strict=True)
    return max(float((ours - act.log_probs).abs().max()) for ours, act in pairs)


@pytest.fixture
def adapted(fresh: Callable[..., JanusPolicy]) -> JanusPolicy:
    """Adapters that were trained."""
    policy = fresh(lora=LORA)
    disturb(policy)
    return policy


def test_adapters_start_as_nothing_and_alone_train(fresh: Callable[..., JanusPolicy], policy: JanusPolicy) -> None:
    ours = fresh(lora=LORA)
    assert len(ours.trainable()) == 2 * 7 * 2  # A and B, seven layers, two blocks
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in ours.trainable().items())
    acts = policy.generate_text("what?", n=2, max_tokens=6)
    assert [a.text for a in ours.generate_text("what?", n=2, max_tokens=6)] == [a.text for a in acts]
    sum(r.log_probs.sum() for r in ours.replay(acts)).backward()
    assert {n for n, p in ours.model.named_parameters() if p.grad is not None} == set(ours.trainable())


def test_sampling_merges_the_adapters(adapted: JanusPolicy, policy: JanusPolicy) -> None:
    acts = [
        *adapted.generate_text("what?", n=2, max_tokens=8),
        *adapted.generate_images("a star", guidance="guided", guidance_scale=2.0),
    ]
    assert distance(adapted, acts) < ATOL
    assert distance(policy, acts) > 0.1


def test_the_reference_is_the_adapter_switched_off(fresh: Callable[..., JanusPolicy], policy: JanusPolicy) -> None:
    ours = fresh(lora=LORA)
    ours.freeze_reference()
    acts = policy.generate_text("what?", n=2, max_tokens=6)
    before = distance(ours, acts)
    disturb(ours)
    assert before < ATOL < 0.1 < distance(ours, acts)
    moved = {name: p.detach().clone() for name, p in ours.trainable().items()}
    with pytest.raises(KeyError), ours.reference():
        assert distance(ours, acts) < ATOL
        assert [a.text for a in ours.generate_text("what?", n=2, max_tokens=6)] == [a.text for a in acts]
        raise KeyError
    assert distance(ours, acts) > 0.1
    assert all(torch.equal(p, moved[name]) for name, p in ours.trainable().items())


def test_an_adapter_folder_is_pefts_and_ours(adapted: JanusPolicy, checkpoint: Path, tmp_path: Path) -> None:
    acts = adapted.generate_text("what?", n=2, max_tokens=8)
    adapted.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(checkpoint)
    assert not (tmp_path / "model.safetensors").exists()
    from transformers import JanusForConditionalGeneration

    with suppress_hf_output():
        base = JanusForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="eager")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    ids = torch.cat([acts[0].encoding.ids, acts[0].ids])[None]
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits[0, len(acts[0].encoding.ids) - 1 : -1]
    expected = torch.log_softmax(logits, dim=-1).gather(1, acts[0].ids[:, None])[:, 0]
    assert torch.allclose(acts[0].log_probs, expected, atol=ATOL)
    again = load_policy(tmp_path, PolicyConfig(path=str(tmp_path), device="cpu"))
    assert again.trainable().keys() == adapted.trainable().keys()
    assert all(torch.equal(p, again.trainable()[name]) for name, p in adapted.trainable().items())
    assert torch.equal(again.log_probs(acts)[0], adapted.log_probs(acts)[0])
    assert [a.text for a in again.generate_text("what?", n=2, max_tokens=8)] == [a.text for a in acts]


def test_a_run_that_starts_from_an_adapter_has_it_as_reference(adapted: JanusPolicy, tmp_path: Path) -> None:
    adapted.save(tmp_path)
    ours = load_policy(tmp_path, PolicyConfig(path=str(tmp_path), device="cpu"))
    ours.freeze_reference()
    acts = ours.generate_text("what?", n=2, max_tokens=6)
    disturb(ours)
    assert distance(ours, acts) > 0.1
    with ours.reference():
        assert distance(ours, acts) < ATOL


def test_an_adapter_under_autocast_keeps_its_base_as_stored(fresh: Callable[..., JanusPolicy], tmp_path: Path) -> None:
    half = fresh()
    half.model.to(torch.bfloat16)
    half.save(tmp_path)
    ours = load_policy(tmp_path, PolicyConfig(path=str(tmp_path), device="cpu", dtype="bfloat16", lora=LORA))
    disturb(ours)
    assert {p.dtype for p in ours.trainable().values()} == {torch.float32}
    assert ours.model.lm_head.weight.dtype == torch.bfloat16
    assert distance(ours, [*ours.generate_text("what?", n=2, max_tokens=6), *ours.generate_images("a star")]) < 0.2


def test_recomputed_activations_give_adapters_the_same_gradients(fresh: Callable[..., JanusPolicy]) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)  # adapters begin at random
        ours = fresh(lora=LORA, gradient_checkpointing=recompute)
        disturb(ours)
        act = ours.generate_text("what?", max_tokens=6)[0]
        loss = ours.replay([act])[0].log_probs.sum()
        gradients.append(torch.autograd.grad(loss, list(ours.trainable().values())))
    assert all(torch.allclose(a, b, atol=ATOL) for a, b in zip(*gradients, strict=True))
    assert all(float(g.abs().max()) > 0 for g in gradients[1])


def test_adapters_and_parts_exclude_each_other(adapted: JanusPolicy) -> None:
    with pytest.raises(ConfigError, match=r"names 'lm_head', which cannot train beside the adapters of policy.lora"):
        adapted.train_parts(["lm_head"])
    with pytest.raises(ConfigError, match=r"names a part 'no_head' that this model does not have"):
        adapted.train_parts(["no_head"])
    before = set(adapted.trainable())
    adapted.train_parts([])
    assert set(adapted.trainable()) == before


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("no_proj",), "no linear layer is called 'no_proj'"),
        (("q_proj", "v_porj"), r"no linear layer is called 'v_porj'\. Did you mean 'v_proj'\?"),
        (("o_proj", "gate", "lm_head"), r"is called 'gate', 'lm_head'\. Did you mean 'gate_proj'"),  # beside the model
        (("q_proj", "self_attn"), "is called 'self_attn'"),  # a module, but not a layer
        (("q_proj", "embed_tokens"), "is called 'embed_tokens'"),
        (("attn.q_proj",), "is called 'attn.q_proj'"),
    ],
)
def test_every_target_names_a_layer(fresh: Callable[..., JanusPolicy], targets: tuple[str, ...], said: str) -> None:
    """peft complains only when nothing matches at all: one typing error beside right names would go unnoticed."""
    with pytest.raises(ConfigError, match=said) as caught:
        fresh(lora=LoraConfig(target_modules=targets))
    assert "policy.lora.target_modules=" in str(caught.value) and "\n" not in str(caught.value)
    assert "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in caught.value.fix


def test_a_target_may_be_the_end_of_a_dotted_name(fresh: Callable[..., JanusPolicy]) -> None:
    names = fresh(lora=LoraConfig(target_modules=("self_attn.q_proj", "layers.1.mlp.up_proj"))).trainable()
    assert len(names) == 2 * (2 + 1)
    assert all("self_attn.q_proj" in name or "layers.1.mlp.up_proj" in name for name in names)


def broken(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_policy(folder, PolicyConfig(path=str(folder), device="cpu"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def test_adapters_that_do_not_fit(adapted: JanusPolicy, tmp_path: Path) -> None:
    adapted.save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    first = sorted(weights)[0]
    save_file({name: w for name, w in weights.items() if name != first}, file)
    assert f"does not fit its base model; they differ at {first}" in broken(tmp_path)
    save_file({**weights, first: torch.zeros(3, 3)}, file)
    assert "cannot be loaded: RuntimeError" in broken(tmp_path)
    file.write_bytes(b"no")
    assert "cannot be loaded" in broken(tmp_path)
    file.unlink()
    assert "cannot be loaded" in broken(tmp_path)


def test_a_base_that_is_gone_is_named(adapted: JanusPolicy, tmp_path: Path) -> None:
    adapted.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for base, words in [("/no/base", "There is no checkpoint at '/no/base'"), (None, "does not name its base model")]:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        assert words in broken(tmp_path) and str(tmp_path) in broken(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    assert "cannot be read" in broken(tmp_path)
