"""Acts of other processes as summaries: everything small is there, everything else says where it is."""

import pickle

import pytest

from motet.core.errors import ProcessError
from motet.core.task import Task
from motet.core.trajectory import DenoisingSteps, Sampling, TextAct, TextTokens
from motet.distributed.shared_groups import is_remote, is_remote_group, remote_act, share_groups, summarize
from motet.scenarios import answer, text_to_image
from motet.testing import FakePolicy
from motet.training.losses.renoising import renoise
from motet.training.rollout import rollout
from tests.distributed.fake_backend import sent
from tests.distributed.threads import in_threads

SAMPLINGS = {"text": Sampling(max_tokens=6), "image": Sampling(), "denoising": Sampling(num_steps=3)}


def tasks(count):
    return [Task(n, {"question": "how many?", "prompt": "one red circle"}) for n in range(count)]


def groups(scenario, rows, kinds=("text", "image")):
    return rollout(FakePolicy(kinds=kinds), scenario, rows, 2, samplings=SAMPLINGS, seed=0, step=0)


def test_a_text_of_another_process():
    (act,) = groups(answer, tasks(1))[0].trajectories[0].acts
    remote = remote_act(sent(summarize(act)))
    assert isinstance(remote, TextTokens) and isinstance(remote, TextAct) and is_remote(remote) and not is_remote(act)
    for name in ("name", "kind", "num_actions", "text", "finished", "trained", "policy_version", "sampling"):
        assert getattr(remote, name) == getattr(act, name), name
    assert len(pickle.dumps(summarize(act))) < 1500
    with pytest.raises(ProcessError, match="'ids' of an act of another process"):
        remote.ids  # noqa: B018
    with pytest.raises(ProcessError, match="'log_probs'"):
        remote.log_probs  # noqa: B018


def test_a_denoised_image_of_another_process_is_one_action_when_it_is_renoised():
    (act,) = groups(text_to_image, tasks(1), ("denoising",))[0].trajectories[0].acts
    remote, own = renoise(remote_act(summarize(act)), (1, 2)), renoise(act, (1, 2))
    assert isinstance(remote, DenoisingSteps) and is_remote(remote)
    assert remote.num_actions == own.num_actions == 1 and remote.stochastic == own.stochastic
    assert remote.log_probs is own.log_probs is None


def test_groups_stay_in_the_order_of_their_tasks():
    rows = tasks(5)

    def work(processes):
        own = groups(answer, processes.own(rows))
        return [(is_remote_group(group), group.task.index, len(group.trajectories)) for group in
                share_groups(processes, rows, own)]  # fmt: skip

    first, second = in_threads(2, work)
    assert first == [(bool(n % 2), n, 2) for n in range(5)]
    assert second == [(not n % 2, n, 2) for n in range(5)]
