"""The fake policy keeps the promises that tests of others build on."""

import pytest
import torch

from motet.core.conversation import user
from motet.core.errors import ContextError
from motet.core.protocols import Request
from motet.core.trajectory import Sampling
from motet.testing import FakePolicy, colour_of

CONTEXT = user("x")


def requests(kind, count=4):
    return [Request(kind, "act", CONTEXT, (0, 0, n)) for n in range(count)]


@pytest.mark.parametrize("kind", ["text", "image", "denoising"])
def test_replayed_log_probs_equal_sampled_ones(kind):
    policy = FakePolicy(kinds=("text", "image", "denoising"))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
    acts = policy.act(requests(kind), Sampling(temperature=0.7, num_steps=3))
    replays = policy.replay(acts, ("entropy", "mean", "std"))
    for act, replay in zip(acts, replays, strict=True):
        assert len(act.log_probs) == act.num_actions and torch.equal(act.log_probs, replay.log_probs.detach())
    sum(replay.log_probs.sum() for replay in replays).backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in policy.trainable().values()) == 1
    assert set(replays[0].extras) == ({"mean", "std"} if kind == "denoising" else {"entropy"})


@pytest.mark.parametrize("kind", ["text", "image", "denoising"])
def test_acts_depend_on_the_key_alone(kind):
    policy = FakePolicy(kinds=(kind,))
    together, again = (policy.act(requests(kind), Sampling()) for _ in range(2))
    alone = FakePolicy(kinds=(kind,)).act(requests(kind)[2:3], Sampling())
    content = "states" if kind == "denoising" else "ids"
    assert all(torch.equal(getattr(a, content), getattr(b, content)) for a, b in zip(together, again, strict=True))
    assert torch.equal(getattr(together[2], content), getattr(alone[0], content))
    assert len({str(getattr(act, content)) for act in together}) > 1


def test_scripts():
    policy = FakePolicy(writes=lambda request: f"said {request.key[-1]}", draws=lambda request: request.key[-1])
    assert [act.text for act in policy.act(requests("text"), Sampling())] == [f"said {n}" for n in range(4)]
    drawn = policy.act(requests("image"), Sampling())
    assert [act.image.getpixel((0, 0)) for act in drawn] == [colour_of(n) for n in range(4)]
    assert policy.prefills == [1, 1]


def test_text_is_cut_at_max_tokens():
    whole, cut = (FakePolicy(writes=["hello"]).act(requests("text", 1), Sampling(max_tokens=n))[0] for n in (6, 5))
    assert (whole.text, whole.finished, whole.num_actions) == ("hello", True, 6)
    assert (cut.text, cut.finished, cut.num_actions) == ("hello", False, 5)


def test_context_limit():
    with pytest.raises(ContextError):
        FakePolicy(max_context=0).act(requests("text", 1), Sampling())


def test_transcribed_acts_can_be_replayed():
    policy = FakePolicy()
    image = policy.act(requests("image", 1), Sampling())[0]
    (again,) = policy.encode_targets(requests("image", 1), [image.image])
    assert torch.equal(again.ids, image.ids) and again.log_probs is None
    (said,) = policy.encode_targets(requests("text", 1), ["hi"])
    assert policy.replay([said])[0].log_probs.shape == (3,)


def test_save(tmp_path):
    FakePolicy().save(tmp_path / "new")
    assert (tmp_path / "new" / "fake_policy.safetensors").is_file()
