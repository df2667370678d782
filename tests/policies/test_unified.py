"""The unified policy: drawings conditioned by a language model's queries, in one replay with its texts."""

import gc
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from diffusers import SanaTransformer2DModel, SD3Transformer2DModel
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

import motet
from motet.config import AlgorithmConfig, LoraConfig, OptimizerConfig, PolicyConfig
from motet.core.conversation import user
from motet.core.errors import CheckpointError, ConfigError, ContextError
from motet.core.protocols import Request, TrainablePolicy
from motet.core.trajectory import Sampling
from motet.policies.diffusion.guidance import guided_velocity
from motet.policies.unified.conditioner import source_image
from motet.training.batches import StepBatch
from motet.training.optimizer_step import PolicyOptimizer
from tests.losses import losses, supervised
from tests.policies.unified import SIDE, build, save

GUIDED = Sampling(num_steps=4, guidance="guided", guidance_scale=2.5, image_guidance_scale=1.5)
PLAIN = Sampling(num_steps=4)
IMAGE = Image.new("RGB", (SIDE, SIDE), (200, 30, 30))


def drawings(contexts, kind="denoising"):
    return [Request(kind, "act", context, (1, n)) for n, context in enumerate(contexts)]


def contexts():
    asked = user("a blue star left of a green square")
    return [asked, asked, user("three"), user(IMAGE, "what colour is it?")]


def test_it_is_a_policy_of_texts_and_drawings():
    policy = build()
    assert isinstance(policy, TrainablePolicy) and policy.kinds == {"text", "denoising"}
    assert {"language_model", "visual", "lm_head", "queries", "connector", "transformer", "source_adapter"} <= set(
        policy.parts
    )


def test_a_drawing_walks_the_schedule_of_its_shift():
    policy, asked = build(), drawings(contexts()[:1])
    (plain,), (shifted,) = policy.act(asked, PLAIN), policy.act(asked, replace(PLAIN, shift=3.0))
    schedule = policy.image_policy.generator.denoiser.schedule
    for act, shift in ((plain, None), (shifted, 3.0)):
        torch.testing.assert_close(act.times, schedule(4, policy.image_policy.generator.shape, shift))
    assert not torch.allclose(plain.times, shifted.times)


@pytest.mark.parametrize("family", ["sana", "sd3"])
def test_what_a_drawing_is_conditioned_on(family):
    """Another prompt, another source, another first noise: another picture. The null branch knows none of them."""
    policy = build(family)
    zero = Sampling(temperature=0.0, num_steps=4)

    def image(context, key=(1, 0)):
        return policy.act([Request("denoising", "d", context, key)], zero)[0].states[-1]

    base = image(user(IMAGE, "make it blue"))
    for other in (user(IMAGE, "make it green"), user(Image.new("RGB", (SIDE, SIDE), "white"), "make it blue")):
        assert (image(other) - base).abs().max() > 1e-3
    assert (image(user(IMAGE, "make it blue"), (1, 1)) - base).abs().max() > 1e-2
    torch.testing.assert_close(image(user(IMAGE, "make it blue")), base, rtol=0, atol=0)


def test_guidance_by_hand():
    """`u + i (p - u) + s (c - p)` of three velocities that are asked for one by one."""
    policy = build()
    (act,) = policy.act([Request("denoising", "d", user(IMAGE, "make it blue"), (1,))], GUIDED)
    conditioner = policy.image_policy.generator.conditioner
    (branches,) = conditioner.branches([act.encoding], [GUIDED])
    whole, image, null = branches.conditions
    assert len(whole.sources) == len(image.sources) == 1 and not null.sources
    assert not image.embeddings.any() and not null.embeddings.any() and whole.embeddings.any()
    x, sigma = act.states[:1], act.times[:1]
    c, p, u = (policy.denoiser.velocity(x, sigma, [one]) for one in (whole, image, null))
    expected = u + 1.5 * (p - u) + 2.5 * (c - p)
    torch.testing.assert_close(guided_velocity(policy.denoiser.velocity, x, sigma, [branches]), expected)


def test_conditions_equal_a_naive_reading():
    """The connector over the language model's hidden states at the queries, context by context."""
    policy = build()
    encodings = policy.image_policy.generator.conditioner.encode(contexts())
    branches = policy.image_policy.generator.conditioner.branches(encodings, [PLAIN] * 4)
    for encoding, found in zip(encodings, branches, strict=True):
        queries = policy.connector.queries["edit" if encoding.sources else "draw"]
        hidden = policy.text_policy.hidden_after([encoding.context], queries)
        embeddings, pooled = policy.connector.connector(hidden)
        torch.testing.assert_close(found.conditions[0].embeddings, embeddings[0], rtol=1e-4, atol=1e-5)
        assert pooled is None


def test_the_last_picture_is_the_one_that_is_edited():
    other = Image.new("RGB", (SIDE, SIDE))
    assert source_image(user(IMAGE, "a") + user(other, "b")) is other
    assert source_image(user("a")) is None


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        (["transformer"], {"transformer"}),
        (["queries", "connector"], {"queries", "connector"}),
        (["language_model", "transformer"], {"language_model", "transformer"}),
    ],
)
def test_gradients_reach_what_trains_and_nothing_else(names, moved):
    """The gradient of a drawing goes through the denoiser and the connector into the language model."""
    policy = build()
    policy.train_parts(names)
    acts = policy.act(drawings(contexts()), PLAIN)
    loss = sum(replay.log_probs.sum() for replay in policy.replay(acts))
    loss.backward()
    with_gradient = {
        part
        for part, module in policy.parts.items()
        if any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    }
    assert with_gradient == moved
    assert all(name.split(".")[0] in names or "language_model" in name for name in policy.trainable())


def test_frozen_conditions_are_computed_once():
    policy = build()
    policy.train_parts(["transformer"])
    acts = policy.act(drawings(contexts()), PLAIN)
    calls = []
    hidden_after = policy.text_policy.hidden_after
    policy.text_policy.hidden_after = lambda *given: calls.append(1) or hidden_after(*given)
    policy.replay(acts)
    policy.replay(acts[:2])
    assert (
        not calls and len(policy.text_policy.prefixes) == 0
    )  # `act` has read these contexts; only conditions are kept
    policy.train_parts(["queries"])
    policy.replay(acts)
    assert len(calls) == 2  # the drawing's queries, and the edit's


def distinct():
    """Requests for drawings from four contexts of several lengths, an edit among them; two share theirs, twice."""
    asked = contexts()
    longer = user("a much longer description of a green square, and of three stars")
    return drawings([*asked, longer, asked[0]])


@pytest.mark.parametrize("reader", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_frozen_reader_keeps_gives_the_same_drawings_and_gradients(reader, recompute):
    """As one that trains, and so reads every context anew."""

    def replayed(train):
        policy = build(reader=reader)
        policy.train_parts(["queries", "connector", *train])
        acts = policy.act(distinct(), GUIDED)
        if recompute:
            policy.enable_gradient_checkpointing()
        found = [replay.log_probs for n in (0, 3) for replay in policy.replay(acts[n : n + 3])]
        sum((n + 1) * log_probs.sum() for n, log_probs in enumerate(found)).backward()
        gradients = {name: p.grad for part in ("queries", "connector") for name, p in named(policy, part)}
        assert all(bool(gradient.any()) for gradient in gradients.values())
        return found, gradients, len(policy.text_policy.prefixes)

    (found, gradients, kept), (expected, wanted, none) = replayed([]), replayed(["language_model"])
    assert (kept, none) == (4, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5 * float(wanted[name].abs().max()))


def named(policy, part):
    return [(f"{part}.{name}", p) for name, p in policy.parts[part].named_parameters()]


def test_recomputed_readings_run_twice_and_others_once():
    for recompute, passes in ((False, 1), (True, 2)):
        policy, calls = build(), []
        policy.train_parts(["queries"])
        acts = policy.act(drawings(contexts()[:1]), PLAIN)
        if recompute:
            policy.enable_gradient_checkpointing()
        layer = policy.text_policy.model.model.language_model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *given, to=calls: to.append(1))
        policy.replay(acts)[0].log_probs.sum().backward()
        assert len(calls) == passes and "forward" not in vars(layer) and layer.training == recompute


@pytest.mark.parametrize("batch", [None, 1])
def test_a_frozen_reader_reads_each_distinct_context_once(batch):
    """While it samples: not for the reference, and not in any micro-batch. What it keeps is gone with the acts."""
    policy, read = build(rollout_batch=batch), []
    policy.train_parts(["queries", "connector", "transformer"])
    policy.freeze_reference()
    adapter = policy.text_policy.adapter
    adapter.embed_prompts = lambda encodings, of=adapter.embed_prompts: read.extend(encodings) or of(encodings)
    acts = policy.act(distinct(), PLAIN)
    with policy.reference():
        reference = policy.replay(acts, ("mean", "std"))
    config = AlgorithmConfig(scale_rewards="none", beta=0.1)
    batch = StepBatch(acts, [1.0, -1.0] * 3, None, reference)
    learner = PolicyOptimizer(policy, OptimizerConfig(max_tokens_per_microbatch=1), 2)
    for _ in range(2):
        learner.step(batch, losses(config))
    assert len(read) == 4 == len({id(act.encoding.context) for act in acts}) == len(policy.text_policy.prefixes)
    del acts, batch
    read.clear()
    gc.collect()
    assert len(policy.text_policy.prefixes) == 0


def test_what_supervision_reads_once_is_not_kept():
    policy = build()
    policy.train_parts(["queries", "connector"])
    acts = policy.encode_targets(drawings(contexts()), [IMAGE] * 4)
    PolicyOptimizer(policy, OptimizerConfig(), 1).step(*supervised(acts))
    assert len(policy.text_policy.prefixes) == 0


@pytest.mark.parametrize(
    ("train", "words", "queries"),
    [(["language_model"], 1, 3), (["queries"], 0, 3), (["transformer"], 0, 0), (["lm_head"], 0, 0)],
)
def test_a_drawing_costs_what_its_replay_computes(train, words, queries):
    policy = build()
    policy.train_parts(train)
    (act,) = policy.act(drawings(contexts()[2:3]), PLAIN)
    image = act.num_actions * policy.denoiser.tokens(act.states.shape[1:])
    whole = len(act.encoding.context.ids)
    assert policy.num_tokens(act) == words * whole + queries + image
    (shown,) = policy.encode_targets(drawings(contexts()[2:3]), [IMAGE])
    assert policy.num_tokens(shown) == whole + 3 + image // act.num_actions  # nothing has read it yet


def test_a_step_of_reinforcement_over_texts_and_drawings_with_a_kl():
    policy = build()
    policy.train_parts(["language_model", "lm_head", "queries", "connector", "transformer"])
    policy.freeze_reference()
    acts = [*policy.act(drawings(contexts()), PLAIN), *policy.act(drawings(contexts(), "text"), Sampling(max_tokens=4))]
    config = AlgorithmConfig(scale_rewards="none", beta=0.1)
    rates = OptimizerConfig(learning_rate=1e-3, param_group_lrs={"transformer": 1e-4, "language_model": 1e-5})
    learner = PolicyOptimizer(policy, rates, 2)
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    for _ in range(2):
        with policy.reference():
            reference = policy.replay(acts, ("mean", "std"))
        stats = learner.step(StepBatch(acts, [1.0, -1.0] * 4, None, reference), losses(config))
    assert stats["denoising/kl"] > 0 and stats["text/kl"] > 0 and policy.version == 2 == policy.text_policy.version
    assert len(learner.adamw.param_groups) == 3
    assert all((p != before[name]).any() for name, p in policy.trainable().items() if "queries.edit" in name)


@pytest.mark.slow
def test_supervision_of_drawings_and_edits_lowers_the_loss():
    policy = build()
    policy.train_parts(["queries", "connector", "transformer", "source_adapter"])
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=3e-3), 60)
    curve = []
    for step in range(60):
        asked = [Request("denoising", "d", context, (step, n)) for n, context in enumerate(contexts())]
        acts = policy.encode_targets(asked, [IMAGE] * 4)
        curve.append(learner.step(*supervised(acts))["denoising/nll"])
    assert sum(curve[-10:]) < 0.5 * sum(curve[:10])


def test_blank_demonstrations_are_the_branches_of_guidance():
    policy, shown = build(), user(IMAGE, "make it blue")
    ways = [(False, False), (True, False), (False, True), (True, True)]
    asked = [
        Request("denoising", "d", shown, (1,), drop_prompt=prompt, drop_source_image=source) for prompt, source in ways
    ]
    drawing = Request("denoising", "d", user("three"), (1,), drop_prompt=True)
    acts = policy.encode_targets([*asked, drawing], [IMAGE] * 5)
    branches = policy.image_policy.generator.conditioner.branches([act.encoding for act in acts], [PLAIN] * 5)
    for (prompt, source), found in zip([*ways, (True, True)], branches, strict=True):
        assert bool(found.conditions[0].embeddings.any()) != prompt
        assert bool(found.conditions[0].sources) != source


@pytest.mark.parametrize("family", ["sana", "sd3"])
def test_saved_parts_load_in_their_own_libraries_and_as_one(tmp_path, family):
    folder = save(tmp_path / "model", family)
    policy = build(family)
    theirs = {"sana": SanaTransformer2DModel, "sd3": SD3Transformer2DModel}[family].from_pretrained(
        folder, subfolder="transformer"
    )
    for name, weight in policy.denoiser.transformer.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], weight, rtol=0, atol=0)
    reader = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "language_model")
    assert torch.equal(reader.lm_head.weight, policy.text_policy.model.lm_head.weight)
    loaded = motet.load_policy(folder, PolicyConfig(path=str(folder), train=("queries", "transformer"), device="cpu"))
    assert {name.split(".")[0] for name in loaded.trainable()} == {"queries", "transformer"}
    for act, other in zip(*(p.act(drawings(contexts()), GUIDED) for p in (policy, loaded)), strict=True):
        torch.testing.assert_close(act.states, other.states, rtol=0, atol=1e-5)
    loaded.save(tmp_path / "again")  # diffusers would note where the first was loaded from
    assert not [file for file in (tmp_path / "again").rglob("*.json") if str(tmp_path) in file.read_text()]


def test_under_autocast_what_is_frozen_stays_as_stored(tmp_path):
    folder = save(tmp_path / "model")
    half = SanaTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.bfloat16)
    half.save_pretrained(folder / "transformer")
    for train, expected in ((("queries", "source_adapter"), torch.bfloat16), (("transformer",), torch.float32)):
        settings = PolicyConfig(path=str(folder), train=train, device="cpu", dtype="bfloat16")
        policy = motet.load_policy(folder, settings)
        assert {p.dtype for p in policy.denoiser.transformer.parameters()} == {expected}
        assert {p.dtype for p in policy.denoiser.source_adapter.parameters()} == {torch.float32}
        acts = policy.act(drawings(contexts()), PLAIN)
        for act, replay in zip(acts, policy.replay(acts), strict=True):
            torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=1e-3)
    policy = motet.load_policy(folder, PolicyConfig(path=str(folder), train=("transformer",), device="cpu"))
    assert {p.dtype for p in policy.denoiser.transformer.parameters()} == {torch.float32}


def test_the_notebooks_door_draws(tmp_path):
    policy = motet.load_policy(save(tmp_path / "model"))
    acts = policy.generate_images(["three", "a blue star"], n=2, num_steps=3)
    assert [act.image.size for act in acts] == [(SIDE, SIDE)] * 4 and acts[0].num_actions == 0
    assert policy.log_probs(policy.generate_images("three", num_steps=3, temperature=1.0))[0].shape == (2,)
    assert policy.generate_text("what colour is it?", images=[acts[0].image], max_tokens=3)[0].text is not None


def test_parts_that_do_not_belong_together(tmp_path):
    folder = save(tmp_path / "model")
    config = folder / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"output_width": 24', '"output_width": 25'))
    with pytest.raises(CheckpointError, match=r"connector.output_width=25, but the model beside it has 24"):
        motet.load_policy(folder)
    config.write_text(whole)
    (folder / "bridge.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a complete unified checkpoint"):
        motet.load_policy(folder)
    with suppress(FileNotFoundError):
        (folder / "bridge.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is not a complete unified checkpoint"):
        motet.load_policy(folder)


def test_the_last_query_has_a_place_too():
    """Unlike an act's last token it is read: contexts must leave room for all of them."""
    policy = build()
    conditioner, queries = policy.image_policy.generator.conditioner, 3
    (encoding,) = conditioner.encode([user("three")])
    policy.text_policy.encoder.max_positions = len(encoding.context.ids) + queries
    assert conditioner.encode([user("three")])
    policy.text_policy.encoder.max_positions -= 1
    with pytest.raises(ContextError):
        conditioner.encode([user("three")])


def test_adapters_of_the_language_model_train_alone():
    pytest.importorskip("peft")
    policy = build()
    policy.add_lora(LoraConfig(rank=2))
    assert policy.trainable() and all(".lora_" in name for name in policy.trainable())


def test_unknown_parts_are_refused():
    with pytest.raises(ConfigError, match=r"names a part .transformers. that this model does not have.*transformer"):
        build().train_parts(["transformers"])
