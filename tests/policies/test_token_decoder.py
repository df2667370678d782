"""A flow decoder of image tokens: one model writes, draws tokens and paints them, and learns from all three."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from transformers import JanusForConditionalGeneration

import motet
from motet.config import DiffusionConfig, LoraConfig, OptimizerConfig, PolicyConfig
from motet.core.conversation import assistant, user
from motet.core.errors import CheckpointError, ConfigError
from motet.core.protocols import Request, TrainablePolicy
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.policies.diffusion.models import build_denoiser
from motet.policies.unified import UnifiedPolicy
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.scenarios import (
    GenerateImage,
    answer,
    as_image_turn,
    scenario,
    text_to_image,
    think_tokens_then_flow,
    tokens_then_flow,
)
from motet.training.batches import StepBatch
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.rollout import encode_demonstrations, rollout
from tests.losses import algorithm, kind_config, losses, supervised
from tests.policies.unified import SIDE, transformer

PLAIN = {"text": Sampling(max_tokens=4), "image": Sampling(), "denoising": Sampling(num_steps=4)}
GUIDED = PLAIN | {
    "image": Sampling(guidance="guided", guidance_scale=3.0),
    "denoising": Sampling(num_steps=4, guidance="guided", guidance_scale=2.5),
}
EVERYTHING = ["language_model", "lm_head", "generation_head", "connector", "transformer"]
NEW = ["connector", "transformer"]


def whole(reader, family="sana", **settings):
    """The same model around the session's tiny Janus at every call."""
    denoiser = build_denoiser(transformer(family), None, FlowMatchEulerDiscreteScheduler(shift=1.0))
    sizes = ConnectorConfig(
        reader.model.config.text_config.hidden_size, denoiser.condition_width, denoiser.pooled_width,
        num_queries=reader.num_image_tokens, num_blocks=2, num_heads=4, feed_forward=48, reads="tokens",
    )  # fmt: skip
    torch.manual_seed(4)
    bridge = QueryConnector(sizes)
    with torch.no_grad():
        bridge.connector.place.normal_(std=0.3)
        for name, weight in denoiser.transformer.named_parameters():
            if "scale_shift_table" not in name and weight.ndim > 1:
                weight.normal_(std=0.2)
    return UnifiedPolicy(reader, bridge, denoiser, height=SIDE, width=SIDE, **settings)


@pytest.fixture
def model(fresh):
    """`model(family)`: a policy of one's own, nothing of it training."""

    def made(family="sana", **settings):
        policy = whole(fresh(**settings), family)
        policy.train_parts([])
        return policy

    return made


def tasks(count=2):
    return [Task(n, {"prompt": prompt, "question": "what colour is it?"}) for n, prompt in enumerate(WORDS[:count])]


WORDS = ["draw two red circles", "a blue star left of a green square", "three"]


def played(policy, made=think_tokens_then_flow, samplings=PLAIN, count=2, G=2):
    groups = rollout(policy, made, tasks(count), G, samplings=samplings, seed=3, step=0)
    return [list(trajectory.acts) for group in groups for trajectory in group.trajectories]


def of_kind(acts, kind):
    return [act for act in acts if act.kind == kind]


def conditions(policy, acts):
    conditioner = policy.image_policy.generator.conditioner
    return [one.conditions[0] for one in conditioner.branches([act.encoding for act in acts], [Sampling()] * len(acts))]


# --- acting


def test_one_trajectory_holds_all_three_kinds(model):
    policy = model()
    assert isinstance(policy, TrainablePolicy) and policy.kinds == {"text", "image", "denoising"}
    assert {"language_model", "generation_head", "connector", "transformer"} <= set(policy.parts)
    assert "queries" not in policy.parts
    for thought, tokens, drawing in played(policy):
        assert (thought.kind, tokens.kind, drawing.kind) == ("text", "image", "denoising")
        assert drawing.image.size == (SIDE, SIDE) and drawing.num_actions == 3
        asked, thought_of = tokens.context.messages
        assert drawing.context.messages[:2] == (asked, thought_of) and thought_of.parts[0].text == thought.text
        assert torch.equal(drawing.encoding.tokens, tokens.ids)
        assert torch.equal(drawing.encoding.context.ids, tokens.encoding.ids)  # what it read when it drew them
        assert drawing.context.messages[-1].parts[0].image is tokens.image


@pytest.mark.parametrize("family", ["sana", "sd3"])
@pytest.mark.parametrize("samplings", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_replay_equals_sampling(model, family, samplings):
    """All three kinds, in other batches than they were sampled in."""
    policy = model(family)
    policy.train_parts(EVERYTHING)
    acts = [act for trajectory in played(policy, samplings=samplings) for act in trajectory]
    assert all(bool(act.log_probs.abs().min() > 0) for act in of_kind(acts, "denoising"))
    for chosen in (acts, acts[::-1][:5], acts[2:3]):
        for act, replay in zip(chosen, policy.replay(chosen), strict=True):
            torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=2e-5)


def test_a_picture_is_conditioned_on_hidden_states_of_its_tokens(model):
    """Trajectory by trajectory: the language model over context and tokens, no padding, no batch."""
    policy = model("sd3")
    drawings = of_kind([act for trajectory in played(policy, count=3, G=1) for act in trajectory], "denoising")
    assert len({len(act.encoding.context.ids) for act in drawings}) > 1
    janus = policy.text_policy.model
    for act, found in zip(drawings, conditions(policy, drawings), strict=True):
        ids, codes = act.encoding.context.ids, act.encoding.tokens
        embedded = [janus.get_input_embeddings()(ids), janus.prepare_embeddings_for_image_generation(codes)]
        hidden = janus.model.language_model(inputs_embeds=torch.cat(embedded)[None]).last_hidden_state[:, len(ids) :]
        embeddings, pooled = policy.connector.connector(hidden)
        torch.testing.assert_close(found.embeddings, embeddings[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.pooled, pooled[0], rtol=1e-4, atol=1e-5)


def test_places_tell_tokens_apart(model):
    """Without them a connector could not say where in the picture a token stands."""
    connector = model().connector.connector
    states = torch.randn(1, 1, 32).expand(1, 16, 32)
    with torch.no_grad():
        told, _ = connector(states)
        connector.place.zero_()
        untold, _ = connector(states)
    assert (told[0] - told[0, 0]).abs().max() > 1e-3
    torch.testing.assert_close(untold[0], untold[0, :1].expand(16, -1))


def test_what_a_picture_depends_on(model):
    """Other tokens, another prompt before the same tokens, another first noise: another picture."""
    policy = model()
    first, second = policy.generate_images("three", n=2)

    def painted(prompt, tokens, key=(1, 0)):
        asked = [Request("denoising", "d", user(prompt) + as_image_turn(tokens), key)]
        return policy.act(asked, Sampling(temperature=0.0, num_steps=4))[0].states[-1]

    base = painted("three", first)
    assert torch.equal(painted("three", first), base)
    for other in (painted("three", second), painted("a star", first), painted("three", first, (1, 1))):
        assert (other - base).abs().max() > 1e-3
    (act, again) = policy.decode_with_flow([first], n=2, num_steps=4)
    assert act.num_actions == 0 and act.image.size == (SIDE, SIDE) and not torch.equal(act.states, again.states)


def test_a_picture_of_a_dataset_has_the_tokens_of_the_image_tokenizer(model, image):
    policy = model()
    shown = Request("denoising", "d", user("three") + assistant(image), (1,))
    (act,) = policy.act([shown], PLAIN["denoising"])
    assert torch.equal(act.encoding.tokens, policy.text_policy.encode_images([image])[0])


def test_missing_image_tokens_raise(model, image):
    policy = model()
    for context in (user("three"), user(image), user("three") + assistant(image) + user("again")):
        with pytest.raises(ConfigError, match=r"ends with text.*as_image_turn\(act\)"):
            policy.act([Request("denoising", "d", context, (1,))], PLAIN["denoising"])


def test_both_ways_of_drawing_are_told_apart(policy):
    """A scenario that declares both gets both or is refused; one that declares either gets what there is."""
    with pytest.raises(ConfigError, match=r"asks for 'image' \(denoising\)"):
        played(policy, tokens_then_flow)

    @scenario("either", acts={"image": "denoising"}, columns=("prompt",))
    def either(task):
        yield GenerateImage(task.prompt)

    assert played(policy, either, count=1, G=1)[0][0].kind == "image"


# --- learning


@pytest.mark.parametrize(
    ("names", "moved"),
    [
        (["transformer"], {"transformer"}),
        (["connector"], {"connector"}),
        (["language_model", "transformer"], {"language_model", "transformer"}),
        (["generation_aligner", "generation_head"], {"generation_aligner"}),
    ],
)
def test_gradients_of_a_painting_reach_what_trains_and_nothing_else(model, names, moved):
    policy = model()
    policy.train_parts(names)
    drawings = of_kind([act for trajectory in played(policy, tokens_then_flow) for act in trajectory], "denoising")
    sum(replay.log_probs.sum() for replay in policy.replay(drawings)).backward()
    with_gradient = {
        part
        for part, module in policy.parts.items()
        if any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    }
    assert with_gradient == moved


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_one_step_over_three_kinds_and_several_scenarios_is_the_sum_of_its_parts(model, loss_type):
    """Texts, tokens and denoising steps of four scenarios, one model, one loss: each kind with its own denominator."""
    config = algorithm(
        loss=loss_type, beta=0.1,
        per_kind={"denoising": kind_config(epsilon=1e-4, weight=2.0), "image": kind_config(weight=0.5)},
    )  # fmt: skip
    rates = OptimizerConfig(
        learning_rate=1e-4,
        max_grad_norm=1e9,
        max_tokens_per_microbatch=150,
        param_group_lrs={"transformer": 1e-3, "connector": 5e-4},
    )

    def run(kinds):
        policy = model()
        policy.train_parts(EVERYTHING)
        policy.freeze_reference()
        trajectories = [
            one
            for made in (think_tokens_then_flow, tokens_then_flow, text_to_image, answer)
            for one in played(policy, made)
        ]
        acts = [act for trajectory in trajectories for act in trajectory if act.kind in kinds]
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter.mul_(1.01)
        with policy.reference():
            reference = policy.replay(acts, ("mean", "std"))
        advantages = [(-1.5) ** (sum(map(ord, act.name)) % 4) for act in acts]
        learner = PolicyOptimizer(policy, rates, 1)
        stats = learner.step(StepBatch(acts, advantages, None, reference), losses(config))
        gradients = {name: p.grad for name, p in policy.trainable().items() if p.grad is not None}
        return stats, gradients, [group["lr"] for group in learner.adamw.param_groups]

    together, gradients, own_rates = run(("text", "image", "denoising"))
    assert sorted(own_rates) == pytest.approx([1e-4, 5e-4, 1e-3])
    parts = {kind: run((kind,)) for kind in ("text", "image", "denoising")}
    assert together["loss"] == pytest.approx(sum(stats["loss"] for stats, _, _ in parts.values()), rel=1e-4)
    for kind, (stats, _, _) in parts.items():
        assert together[f"{kind}/loss"] == pytest.approx(stats["loss"], rel=1e-4)
        assert together[f"{kind}/kl"] > 0
    for name, gradient in gradients.items():
        added = sum(own[name] for _, own, _ in parts.values() if name in own)
        torch.testing.assert_close(gradient, added, rtol=1e-3, atol=1e-6)


def test_frozen_acts_are_reported_and_move_nothing(model):
    """The decoder learns alone in scenarios that write and draw tokens as well."""
    policy = model()
    policy.train_parts(NEW)
    acts = [act for trajectory in played(policy) for act in trajectory]
    config = algorithm()
    stats = PolicyOptimizer(policy, OptimizerConfig(), 1).step(StepBatch(acts, [1.0, -1.0, 0.5] * 4), losses(config))
    assert stats["grad_norm"] > 0 and {"text/ratio", "image/ratio", "denoising/ratio"} <= set(stats)
    with pytest.raises(ConfigError, match=r"has a gradient from the acts of this step \(text\)"):
        PolicyOptimizer(policy, OptimizerConfig(), 1).step(StepBatch(of_kind(acts, "text"), [1.0] * 4), losses(config))


@pytest.mark.slow
def test_supervision_teaches_the_decoder(model):
    """Flow matching towards pictures, conditioned on their tokens, beside the likelihood of the tokens."""
    policy = model()
    policy.train_parts([*NEW, "generation_head"])
    colours = ["red", "blue", "white", "green"]
    rows = [Task(n, {"prompt": WORDS[n % 3], "target": Image.new("RGB", (24, 24), c)}) for n, c in enumerate(colours)]
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=3e-3), 50)
    curve = []
    for step in range(50):
        shown = encode_demonstrations(
            policy, tokens_then_flow, rows, {"tokens": "target", "image": "target"}, step=step
        )
        acts = [act for trajectory in shown for act in trajectory.acts]
        assert [torch.equal(d.encoding.tokens, t.ids) for t, d in zip(acts[::2], acts[1::2], strict=True)] == [True] * 4
        curve.append(learner.step(*supervised(acts)))
    for name in ("denoising/nll", "image/nll"):
        values = [stats[name] for stats in curve]
        assert sum(values[-10:]) < 0.6 * sum(values[:10]), (name, values)


def test_a_blank_demonstration_is_the_null_branch(model, image):
    policy = model()
    asked = [Request("denoising", "d", user("three") + assistant(image), (n,), drop_prompt=bool(n)) for n in range(2)]
    told, drop_prompt = conditions(policy, policy.encode_targets(asked, [image] * 2))
    assert told.embeddings.any() and not drop_prompt.embeddings.any()


def test_what_is_left_out_of_the_loss(model):
    policy = model()
    for trained, made in (
        ([True, True], tokens_then_flow),
        ([False, True], tokens_then_flow.with_options({"train_tokens": False})),
        ([True, True, False], think_tokens_then_flow.with_options({"train_image": False})),
    ):
        (acts,) = played(policy, made, count=1, G=1)
        assert [act.trained for act in acts] == trained


def test_frozen_conditions_are_computed_once_and_forgotten_once_training_begins(model):
    policy = model()
    policy.train_parts(["transformer"])
    drawings = of_kind([act for trajectory in played(policy, tokens_then_flow) for act in trajectory], "denoising")
    before = conditions(policy, drawings)
    assert conditions(policy, drawings)[0] is before[0]
    policy.train_parts(["connector"])
    PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-2), 1).step(
        *supervised(policy.encode_targets([Request("denoising", "d", drawings[0].context, (1,))], [drawings[0].image]))
    )
    policy.train_parts(["transformer"])
    assert (conditions(policy, drawings)[0].embeddings - before[0].embeddings).abs().max() > 1e-3


# --- folders


def test_a_saved_model_loads_as_one_and_in_its_own_libraries(model, tmp_path):
    policy = model("sd3")
    policy.save(tmp_path)
    theirs = JanusForConditionalGeneration.from_pretrained(tmp_path / "language_model")
    assert torch.equal(theirs.lm_head.weight, policy.text_policy.model.lm_head.weight)
    loaded = motet.load_policy(tmp_path, PolicyConfig(path=str(tmp_path), train=tuple(NEW), device="cpu"))
    assert {name.split(".")[0] for name in loaded.trainable()} == set(NEW)
    for one, other in zip(played(policy, samplings=GUIDED), played(loaded, samplings=GUIDED), strict=True):
        assert torch.equal(one[1].ids, other[1].ids)
        torch.testing.assert_close(one[2].states, other[2].states, rtol=0, atol=1e-5)
    larger = PolicyConfig(
        path=str(tmp_path), diffusion=DiffusionConfig(size=(24, 16)), train=("connector",), device="cpu"
    )
    assert motet.load_policy(tmp_path, larger).generate_images("three")[0].kind == "image"
    assert motet.load_policy(tmp_path, larger).image_policy.generator.shape == (3, 24, 16)


def test_adapters_on_either_expert(model, checkpoint, tmp_path):
    pytest.importorskip("peft")
    model("sd3").save(tmp_path / "base")
    small = LoraConfig(rank=2, alpha=4.0)

    def opened(path, **settings):
        return motet.load_policy(path, PolicyConfig(path=str(path), device="cpu", **settings))

    drawn = opened(tmp_path / "base", diffusion=DiffusionConfig(lora=small), train=("connector",))
    names = set(drawn.trainable())
    assert {name.partition(".")[0] for name in names} == {"connector", "transformer"}
    assert all(".lora_" in name for name in names if name.startswith("transformer"))
    with pytest.raises(ConfigError, match=r"cannot train beside the adapters of policy\.diffusion\.lora"):
        opened(tmp_path / "base", diffusion=DiffusionConfig(lora=small), train=("transformer",))
    written = opened(tmp_path / "base", lora=small)
    assert written.trainable() and all(".lora_" in name and "language_model" in name for name in written.trainable())
    with torch.no_grad():
        for parameter in written.trainable().values():
            parameter.add_(0.05)
    written.save(tmp_path / "adapted")
    again = motet.load_policy(tmp_path / "adapted")
    assert set(again.trainable()) == set(written.trainable())
    for one, other in zip(*(played(p, count=1, G=1)[0] for p in (written, again)), strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=1e-5)


def test_parts_that_do_not_belong_together(model, tmp_path):
    model().save(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text()
    for wrong, words in (
        (('"num_queries": 16', '"num_queries": 15'), "connector.num_queries=15, but the model beside it has 16"),
        (('"reads": "tokens"', '"reads": "queries"'), "connector.reads=queries, but the model beside it has tokens"),
    ):
        config.write_text(text.replace(*wrong))
        with pytest.raises(CheckpointError, match=words):
            motet.load_policy(tmp_path)
