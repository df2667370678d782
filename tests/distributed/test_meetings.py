"""Processes wait for each other by name: an error of one ends all, and so does one that does not come."""

import time

import pytest
import torch.distributed as dist

from motet.core.errors import ProcessError, RewardError
from motet.distributed.meetings import Meetings
from tests.distributed.threads import in_threads


def meetings(size, timeout=30.0):
    store = dist.HashStore()
    return [Meetings(store, rank, size, timeout) for rank in range(size)]


def test_nobody_passes_before_all_are_there():
    own = meetings(3)
    arrived, seen = [], []

    def work(processes):
        mine = own[processes.rank]
        for number in range(3):
            mine.enter("rollout")
            time.sleep(0.01 * processes.rank)
            arrived.append(number)
            mine.meet()
            seen.append((number, arrived.count(number)))

    in_threads(3, work)
    assert seen == [(number, 3) for number in range(3) for _ in range(3)]
    assert own[0].store.num_keys() <= 5  # one per process, and those of the last meeting


def test_an_error_of_one_ends_the_others_with_its_rank_and_phase():
    own = meetings(3, timeout=3.0)

    def work(processes):
        mine = own[processes.rank]
        mine.enter("in phase 'rewards' of step 17")
        if processes.rank == 2:
            mine.fail(RewardError("Reward 'r' raised.", fix="correct it."))
            return "failed"
        with pytest.raises(ProcessError) as told:
            mine.meet()
        return str(told.value)

    said = in_threads(3, work)
    assert said[2] == "failed"
    assert said[0] == said[1]
    assert said[0].startswith("Process 2 failed in phase 'rewards' of step 17: RewardError: Reward 'r' raised.")


def test_a_process_that_hangs_is_named_with_its_phase():
    first, second = meetings(2, timeout=0.2)
    second.enter("in phase 'rewards' of step 3")
    first.enter("in phase 'rollout' of step 3")
    with pytest.raises(ProcessError, match=r"Process 1 in phase 'rewards' of step 3 did not finish within 0.2 s"):
        first.meet()
    with pytest.raises(ProcessError, match="Process 0 failed"):  # it comes too late
        second.meet()


def test_the_others_leave_after_process_0_has_saved():
    own = meetings(2)
    saved = []

    def work(processes):
        error = RewardError("r", fix="f")
        if processes.rank == 0:
            time.sleep(0.2)
            saved.append(True)
            return own[0].leave(ProcessError("Process 1 failed.", fix="f"))
        own[1].fail(error)
        told = own[1].leave(error)
        return told, list(saved)

    assert in_threads(2, work) == [None, ("Process 1 failed. Fix: f", [True])]


def test_errors_of_collectives_tell_who_is_missing():
    first, second = meetings(2)
    second.enter("in phase 'replay' of step 4")
    first.enter("in phase 'replay' of step 4")
    lost = RuntimeError("[gloo/transport/tcp] Timed out waiting 4000ms for recv operation to complete")
    with pytest.raises(ProcessError, match=r"Process 0 lost .* \(Last seen: process 1 in phase"), first.collective():
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), first.collective():
        raise RuntimeError("shapes cannot be multiplied")  # of its own
    second.fail(RewardError("down.", fix="wait."))
    failed = "Process 1 failed in phase 'replay' of step 4: RewardError: down"
    with pytest.raises(ProcessError, match=failed), first.collective():
        raise RuntimeError("Connection closed by peer")
