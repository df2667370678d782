"""Whoever listens to a generation hears the tokens that it returns, with both engines."""

import pytest

from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.sampling import Sampling
from motet.policies.generation.token_listener import listen_to_tokens
from motet.policies.loading import load_policy


@pytest.mark.parametrize("static", [False, True])
def test_a_listener_hears_all_tokens_before_the_end(tiny_checkpoint, static):
    policy = load_policy(tiny_checkpoint)
    policy.static_cache = static
    heard = {}
    requests = [Request("text", "text", user("what colour?"), (k,)) for k in range(6)]
    sampling = Sampling(max_tokens=20, temperature=2.0)
    with listen_to_tokens(lambda sequence, ids: heard.setdefault(sequence, []).append(ids.tolist())):
        acts = policy.act(requests, sampling)
    assert [act.text for act in acts] == [act.text for act in policy.act(requests, sampling)]
    assert len({act.num_actions for act in acts}) > 1
    for sequence, act in enumerate(acts):
        ids = act.ids.tolist()
        assert heard[sequence] == [ids[: n + 1] for n in range(len(ids) - act.finished)]


def test_an_exception_of_the_listener_ends_the_generation(tiny_checkpoint):
    policy, heard = load_policy(tiny_checkpoint), []

    def listener(sequence, ids):
        heard.append(len(ids))
        if len(ids) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError), listen_to_tokens(listener):
        policy.act([Request("image", "image", user("a"), (0,))], Sampling())
    assert heard == [1, 2] and policy.generate_text("a", max_tokens=2)
