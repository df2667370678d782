"""The static engine samples, by key, the tokens that the other samplers do, whatever slot a sequence gets.

Bounds: float32 samplers and replay agree within 1e-4 in log-probability.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from motet.config import LoraConfig, PolicyConfig
from motet.core.conversation import user
from motet.core.errors import ContextError, NumericsError
from motet.core.protocols import Request
from motet.core.trajectory import Act, Sampling
from motet.policies import load_policy
from motet.policies.emu3 import Emu3Policy
from motet.policies.generation import cuda_graphs, decode, static_engine, static_prefill
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.generation.sampling import left_padded
from motet.policies.generation.static_cache import StaticCache
from motet.policies.generation.static_engine import FinishedFlags, StaticEngine
from motet.policies.generation.static_sampler import StaticSampler
from motet.policies.generation.static_step import SlotState
from motet.policies.janus import JanusPolicy
from motet.policies.janus.adapter import JanusAdapter
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.tiny.emu3 import make_tiny_emu3
from motet.testing import paper_gpu
from tests.policies.generation.static_decoding import decode_static
from tests.policies.teacher import sound_transformers
from tests.policies.vlms import conversations, generated, open_policy, requests, teacher_forced, worst

ROOT = Path(__file__).parents[3]
ATOL = 1e-4
GUIDED = {"guidance": "guided", "guidance_scale": 3.0}
PROMPTS = ["two red circles", "a blue star left of a green square", "what colour is it?"]
IMAGES = {
    "plain": Sampling(),
    "guided": Sampling(**GUIDED),
    "truncated": Sampling(**GUIDED, temperature=0.7, top_k=20, top_p=0.9),
    "conditional": Sampling(guidance="conditional", guidance_scale=3.0, min_p=0.02),
}
LONG = Sampling(max_tokens=27, temperature=2.0)


def asked(kind: str, n: int) -> list[Request]:
    contexts = [user(prompt) for prompt in PROMPTS]
    return [Request(kind, kind, context, (0, 0, i, g, 0)) for i, context in enumerate(contexts) for g in range(n)]


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of many lengths: many tokens end one."""
    monkeypatch.setattr(JanusAdapter, "stop_ids", property(lambda _: tuple(range(20, 45))))


@contextlib.contextmanager
def through(policy: LanguageModelPolicy, slots: int | None = None, bucket: int = 32) -> Iterator[StaticSampler]:
    """Inside, the policy samples through the static engine."""
    sampler = StaticSampler(policy._fused_model(), bucket=bucket)
    before = policy.static_cache, policy.rollout_batch
    policy.static_cache, policy.rollout_batch, policy._sampler = True, slots, (policy.version, sampler)
    yield sampler
    policy.static_cache, policy.rollout_batch = before
    policy._sampler = None


def same_acts(ours: Sequence[Act], theirs: Sequence[Act]) -> bool:
    return all(torch.equal(a.ids, b.ids) for a, b in zip(ours, theirs, strict=True))  # type: ignore[attr-defined]


def agree(policy: LanguageModelPolicy, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Same tokens and log-probs, and replay gives them too."""
    assert same_acts(ours, theirs)
    assert [act.encoding.ids.tolist() for act in ours] == [act.encoding.ids.tolist() for act in theirs]
    assert worst([act.log_probs for act in ours], [act.log_probs for act in theirs]) < ATOL
    assert worst([r.log_probs for r in policy.replay(ours)], [act.log_probs for act in ours]) < ATOL


# ---- the tokens of the other samplers -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "slots"), [("plain", None), *((name, 4) for name in IMAGES)])
def test_images_are_those_of_the_fused_sampler(policy: JanusPolicy, name: str, slots: int | None) -> None:
    theirs = policy.act(asked("image", 3), IMAGES[name])
    with through(policy, slots):
        ours = policy.act(asked("image", 3), IMAGES[name])
    agree(policy, ours, theirs)
    if name == "conditional":
        behaviour = [[act.behaviour_log_probs for act in acts] for acts in (ours, theirs)]
        assert worst(*behaviour) < ATOL


@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.parametrize("slots", [None, 5], ids=["one batch", "refilled"])
def test_texts_are_those_of_the_fused_sampler(
    policy: JanusPolicy, stops: None, monkeypatch: pytest.MonkeyPatch, slots: int | None, every: int
) -> None:
    theirs = policy.act(asked("text", 8), LONG)
    lengths = {act.num_actions for act in theirs}
    assert len(lengths) > 6 and max(lengths) == LONG.max_tokens  # some stop, some do not
    monkeypatch.setitem(static_engine.STOP_CHECK_EVERY, "cpu", every)
    with through(policy, slots):
        agree(policy, policy.act(asked("text", 8), LONG), theirs)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_emu3_with_its_separators(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model, processor = make_tiny_emu3(PROMPTS)
    torch.nn.init.normal_(model.lm_head.weight, std=0.35)
    policy = Emu3Policy(model, processor)
    sampling = Sampling(max_tokens=12, **(GUIDED if kind == "image" else {}))
    theirs = policy.act(asked(kind, 2), sampling)
    with through(policy, slots=4):
        agree(policy, policy.act(asked(kind, 2), sampling), theirs)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_qwen_vl_texts_about_images_of_any_size(vlm: VlmPolicy, vlm_checkpoint: Any, lora: bool) -> None:
    """Contexts of different lengths and image sizes, against transformers' own modules."""
    policy = open_policy(vlm_checkpoint) if lora else vlm
    if lora:
        policy.add_lora(LoraConfig(rank=4))
        torch.manual_seed(0)
        with torch.no_grad():
            for name, weight in policy.trainable().items():
                weight.add_(0.1 * torch.randn_like(weight) * ("lora_B" in name))
    for sampling, slots in ((Sampling(max_tokens=8, temperature=0.0), None), (Sampling(max_tokens=16), 5)):
        theirs = policy.act(requests(*conversations(), n=3), sampling)
        assert len({act.encoding.ids.shape for act in theirs}) == 3
        with through(policy, slots):
            ours = policy.act(requests(*conversations(), n=3), sampling)
        agree(policy, ours, theirs)
    if lora:
        assert not same_acts(ours, vlm.act(requests(*conversations(), n=3), sampling))


@sound_transformers
def test_qwen_vl_greedy_text_is_that_of_transformers_generate(vlm: VlmPolicy) -> None:
    with through(vlm):
        acts = vlm.act(requests(*conversations(), n=1), Sampling(max_tokens=12, temperature=0.0))
    for act in acts:
        assert act.ids.tolist() == generated(vlm, act.encoding, 12)
    assert worst([act.log_probs for act in acts], [teacher_forced(vlm, act) for act in acts]) < ATOL


@pytest.mark.skipif(
    torch.__version__.startswith(("2.6.", "2.7.", "2.8.")), reason="autocast of torch 2.6 rounds otherwise: 4.1 % there"
)
def test_bfloat16_sampling_under_guidance_stays_near_its_replay() -> None:
    """As the fused sampler's does; 2.2 % of the ratios of a float32 sampler lie outside."""
    settings = PolicyConfig(path="checkpoints/shapes_janus", device="cpu", dtype="bfloat16", rollout_dtype="bfloat16")
    policy = load_policy("checkpoints/shapes_janus", settings)
    contexts = [user("two red circles"), user("a green square left of a big blue triangle"), user("three yellow stars")]
    images = [
        Request("image", "image", context, (0, 0, i, g, 0)) for i, context in enumerate(contexts) for g in range(8)
    ]
    with through(policy, bucket=128) as sampler:
        acts = policy.act(images, Sampling(guidance="guided", guidance_scale=5.0))
        assert sampler.storage is not None and sampler.storage.dtype == torch.bfloat16
    with torch.no_grad():
        differences = torch.cat([r.log_probs - a.log_probs for r, a in zip(policy.replay(acts), acts, strict=True)])
    assert float((differences.exp() - 1).abs().gt(0.2).float().mean()) < 0.033


@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "guided"])
def test_decode_static_is_decode(policy: JanusPolicy, guided: bool) -> None:
    sampling = Sampling(**(GUIDED if guided else {}))
    encodings = policy.encoder.encode_all([user(p) for p in PROMPTS], max_new_tokens=16, kind="image", with_null=guided)
    prefixes, rows, null_rows = left_padded(policy.adapter, [encodings[n] for n in (0, 1, 1, 2)])
    fused = policy._fused_model()
    head, embed = fused.modules["image"]
    settings = {"head": head, "embed": embed, "uniforms": torch.rand(4, 16), "sampling": sampling}
    settings["stop_ids"] = tuple(range(12))  # what follows them is 0
    theirs = decode(fused.language, prefixes, rows, null_rows, **settings)
    for slots in (None, 3):
        ours = decode_static(fused.language, prefixes, rows, null_rows, slots=slots, **settings)
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.lengths, theirs.lengths)
        torch.testing.assert_close(ours.log_probs, theirs.log_probs, atol=ATOL, rtol=0)


# ---- slots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", ["columns", "positions", "hidden", "counts", "uniforms", "finished"])
def test_a_slot_that_is_refilled_without_a_reset_would_be_noticed(
    policy: JanusPolicy, stops: None, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    theirs = policy.act(asked("text", 4), LONG)

    def forgetting(method: Any) -> Any:
        begun: set[int] = set()

        def wrapped(self: Any, which: Any, *others: Any) -> None:
            kept = getattr(self, forgotten).clone() if hasattr(self, forgotten) else None
            method(self, which, *others)
            places = set([which] if isinstance(which, int) else which)
            for place in places & begun if kept is not None else ():
                getattr(self, forgotten)[place] = kept[place]
            begun.update(places)

        return wrapped

    monkeypatch.setattr(StaticCache, "place", forgetting(StaticCache.place))
    monkeypatch.setattr(SlotState, "restart", forgetting(SlotState.restart))
    with through(policy, slots=3, bucket=256):
        ours = policy.act(asked("text", 4), LONG)
    assert not same_acts(ours, theirs)


def test_each_context_is_prefilled_once(policy: JanusPolicy, stops: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its sequences get their slots at different times; and in batches of bounded size."""
    batches: list[list[int]] = []
    prefill = static_prefill._prefill

    def counted(snapshot: Any, prompts: Any) -> Any:
        batches.append([len(prompt.vectors) for prompt in prompts])
        return prefill(snapshot, prompts)

    monkeypatch.setattr(static_prefill, "_prefill", counted)
    with through(policy, slots=2):
        acts = policy.act(asked("text", 4), LONG)
    assert sorted(length for batch in batches for length in batch) == sorted({len(act.encoding.ids) for act in acts})
    monkeypatch.setattr(static_prefill, "PREFILL_TOKENS", 1)
    batches.clear()
    with through(policy):
        policy.act(asked("image", 2), Sampling(**GUIDED))
    assert [len(batch) for batch in batches] == [1] * len(batches) and len(batches) >= 4


def test_storage_never_moves_and_engines_are_kept(policy: JanusPolicy) -> None:
    def addresses(engine: StaticEngine) -> list[int]:
        return [value.data_ptr() for part in (engine.cache, engine.state) for value in vars(part).values()]

    with through(policy, slots=4) as sampler:
        policy.act(asked("text", 2), LONG)
        _, engine = sampler.engines["text"]
        before = addresses(engine)
        policy.act(asked("text", 2), LONG)
        assert sampler.engines["text"][1] is engine and addresses(engine) == before
        policy.act(asked("text", 2), Sampling(max_tokens=5))
        assert sampler.engines["text"][1] is not engine
        assert sampler.engines["text"][1].cache.keys_values.data_ptr() == before[0]  # kinds share the storage


def test_attention_reads_no_further_than_the_next_bucket(policy: JanusPolicy) -> None:
    with through(policy, slots=4, bucket=16) as sampler:
        acts = policy.act(asked("text", 2), LONG)
        widths = sampler.engines["text"][1].graphs.calls
    longest = max(len(act.encoding.ids) + act.num_actions for act in acts)
    assert {name for name, _ in widths} == {"step"}
    assert {width for _, width in widths} <= set(range(16, longest + 16, 16)) and len(widths) > 1


def test_flags_of_an_earlier_occupant_are_not_believed(policy: JanusPolicy) -> None:
    flags = FinishedFlags(3, torch.device("cpu"))
    flags.submit(torch.tensor([True, False, True]), {0: 7, 1: 8})
    assert flags.read() == [(0, 7)]
    with through(policy) as sampler:
        policy.act(asked("text", 1), LONG)
        engine = sampler.engines["text"][1]
    engine.occupants = {0: static_engine.Occupant(9, 5)}
    assert not engine._holds(0, 7) and engine._holds(0, 9) and not engine._holds(1, 8)


def test_the_host_waits_for_no_token(fresh: Callable[..., JanusPolicy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the GPU on paper, where a copy to pinned memory, as of the flags every 8 steps, makes nobody wait."""
    monkeypatch.setattr(JanusAdapter, "stop_ids", property(lambda _: (10**6,)))  # nothing ends a text
    policy = fresh()
    with paper_gpu() as gpu:
        gpu.move(policy.model)
        policy.model.set_attn_implementation("sdpa")

        def syncs(kind: str, max_tokens: int = 16) -> dict[str, int]:
            gpu.clear()
            policy.act(asked(kind, 2), Sampling(max_tokens=max_tokens, **(GUIDED if kind == "image" else {})))
            return {event.where: count for event, count in gpu.syncs.items()}

        with through(policy):
            syncs("text")  # the engine is made
            assert syncs("text", 40) == syncs("text", 8)
            assert not [place for place in syncs("image") if "static_" in place]


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_wrong_use_is_rejected(fresh: Callable[..., JanusPolicy]) -> None:
    policy = fresh()
    encodings = policy.encoder.encode_all([user("two")], max_new_tokens=4, kind="text", with_null=False)
    sampler = StaticSampler(policy._fused_model())

    def sample(count: int) -> Any:
        return sampler.sample(policy.adapter, encodings, "text", torch.rand(1, count), Sampling())

    assert sample(0).ids.shape == (1, 0)
    with pytest.raises(ContextError, match="and 900 new ones exceed"):
        sample(900)
    with torch.no_grad():
        policy.model.lm_head.weight.add_(0.0)
        policy.adapter.language_model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="take a new one"):
        sample(3)
    sampler = StaticSampler(policy._fused_model())
    with pytest.raises(NumericsError, match="not finite"):
        sample(3)
    assert sampler.storage is None and not sampler.engines


# ---- graphs ---------------------------------------------------------------------------------------------------------


class FakeCuda:
    """What `GraphRunner` uses of torch.cuda: inside `graph` launches are recorded, `replay` makes them."""

    def __init__(self) -> None:
        self.recording: Any = None
        self.pools: list[Any] = []

    def Stream(self, device: Any) -> Any:
        return self

    CUDAGraph: Any = None

    def current_stream(self, device: Any) -> Any:
        return self

    def wait_stream(self, stream: Any) -> None: ...

    def stream(self, stream: Any) -> Any:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def graph(self, graph: Any, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.recording = graph
        self.pools.append(pool)
        yield
        self.recording = None

    def launch(self, work: Callable[[], None]) -> None:
        work() if self.recording is None else self.recording.work.append(work)


class FakeGraph:
    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def pool(self) -> int:
        return id(self)

    def replay(self) -> None:
        for work in self.work:
            work()


def test_graphs_do_what_eager_calls_do(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    cuda.CUDAGraph = FakeGraph
    monkeypatch.setattr(cuda_graphs.torch, "cuda", cuda)
    runner, counts = cuda_graphs.GraphRunner(torch.device("cuda")), {"a": 0, "b": 0}
    called: list[str] = []

    def function(key: str) -> None:
        called.append(key)
        cuda.launch(lambda: counts.__setitem__(key, counts[key] + 1))

    for key in "aabaaababbb":
        runner(key, lambda key=key: function(key))
    assert counts == {"a": 6, "b": 5}  # every call counts once, warm-up, capture and replay alike
    assert called.count("a") == called.count("b") == cuda_graphs.WARM_UP + 1  # the rest were replays
    assert cuda.pools == [None, runner.graphs["a"].pool()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_step_is_one_graph_for_any_position(checkpoint: Path, kind: str) -> None:
    """Counted by a backend and by torch's own counters: one graph per bucket, no breaks, new weights included.

    In a process of its own, where functions carry no runtime type checks.
    """
    command = [sys.executable, "-m", "tests.policies.generation.graph_counts", str(checkpoint), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted["same tokens"]
    assert counted["buckets"][0] == 1 and counted["buckets"][1] > 1
    assert counted["graphs"] == counted["buckets"]
    assert counted["unique_graphs"] == sum(counted["buckets"])
    assert counted["graph_breaks"] == 0
    assert counted["steps"] >= 60


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["text", "image"])
def test_captured_graphs_sample_what_the_cpu_does(fresh: Callable[..., JanusPolicy], kind: str) -> None:
    sampling = Sampling(max_tokens=27, temperature=2.5, **(GUIDED if kind == "image" else {}))
    on_cpu = fresh().act(asked(kind, 8), sampling)
    policy = fresh(device="cuda", dtype="float32", rollout_dtype="float32")
    with through(policy, 5) as sampler:
        for _ in range(2):
            assert same_acts(policy.act(asked(kind, 8), sampling), on_cpu)
        assert sampler.engines[kind][1].graphs.graphs
