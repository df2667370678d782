"""A listener to a generation is told the tokens that it returns, by both engines."""

import pytest

from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.sampling import Sampling
from motet.policies.generation.token_listener import listen_to_tokens
from motet.policies.loading import load_policy


@pytest.mark.parametrize("static", [False, True])
def test_a_listener_is_told_all_tokens_before_the_end(tiny_checkpoint, static):
    policy = load_policy(tiny_checkpoint)
    policy.static_cache = static
    told = {}
    requests = [Request("text", "text", user("what colour?"), (k,)) for k in range(6)]
    sampling = Sampling(max_tokens=20, temperature=2.0)
    with listen_to_tokens(lambda sequence, ids: told.setdefault(sequence, []).append(ids.tolist())):
        acts = policy.act(requests, sampling)
    assert [act.text for act in acts] == [act.text for act in policy.act(requests, sampling)]
    assert len({act.num_actions for act in acts}) > 1
    for sequence, act in enumerate(acts):
        ids = act.ids.tolist()
        assert told[sequence][: len(ids) - 1] == [ids[: n + 1] for n in range(len(ids) - 1)]
        assert len(told[sequence]) <= len(ids) - act.finished  # the end itself is not told


def test_an_exception_of_the_listener_ends_the_generation(tiny_checkpoint):
    policy, told = load_policy(tiny_checkpoint), []

    def listener(sequence, ids):
        told.append(len(ids))
        if len(ids) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError), listen_to_tokens(listener):
        policy.act([Request("image", "image", user("a"), (0,))], Sampling())
    assert told == [1, 2] and policy.generate_text("a", max_tokens=2)
