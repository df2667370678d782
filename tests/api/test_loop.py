"""The loop as functions: the same numbers as the trainer's, and what is given wrongly."""

import pytest

import motet
from motet.core.errors import ConfigError, DataError
from motet.core.task import Task
from tests.api.test_train import ROWS, length, train
from tests.runs import metrics

SAMPLING = {"text": {"max_tokens": 6}}


def test_a_loop_of_ones_own_is_the_trainers(tiny_checkpoint, tmp_path):
    """Two steps on the rows that the trainer takes: rewards, loss and gradient are the same."""
    seen = []

    def noting(prompts, completions, question, **columns):
        seen.append(list(dict.fromkeys(question)))
        return length(prompts, completions)

    train(tiny_checkpoint, tmp_path / "run", rewards=noting)
    policy = motet.load_policy(str(tiny_checkpoint))
    optimizer = motet.Optimizer(policy, learning_rate=0.003, steps=2, sampling=SAMPLING)
    rows = {row["question"]: Task(n, row) for n, row in enumerate(ROWS)}
    for step, (line, questions) in enumerate(zip(metrics(tmp_path / "run"), list(seen), strict=True)):
        tasks = [rows[question] for question in questions]
        groups = motet.rollout(policy, "answer", tasks, 2, sampling=SAMPLING, seed=3, step=step)
        scores = motet.score(groups, length)
        stats = motet.update(optimizer, groups, motet.advantages(groups, scores))
        assert scores.metrics["reward"] == pytest.approx(line["reward"], rel=1e-6)
        for key in ("loss", "grad_norm", "learning_rate", "text/entropy"):
            if key in line:
                assert stats[key] == pytest.approx(line[key], rel=1e-5, abs=1e-9), key


def test_rows_become_tasks_and_noise_follows_the_updates(tiny_checkpoint):
    policy = motet.load_policy(str(tiny_checkpoint))
    groups = motet.rollout(policy, "answer", ROWS[:2], num_generations=3, sampling=SAMPLING)
    assert [len(group.trajectories) for group in groups] == [3, 3]
    assert [group.task.index for group in groups] == [0, 1]
    again = motet.rollout(policy, "answer", ROWS[:2], num_generations=3, sampling=SAMPLING)
    texts = [[one.acts[0].text for one in group.trajectories] for group in groups]
    assert texts == [[one.acts[0].text for one in group.trajectories] for group in again]
    policy.version += 1
    later = motet.rollout(policy, "answer", ROWS[:2], num_generations=3, sampling=SAMPLING)
    assert texts != [[one.acts[0].text for one in group.trajectories] for group in later]
    with pytest.raises(DataError, match="has no column 'question'"):
        motet.rollout(policy, "answer", [{"answer": "2"}])


def test_advantages_of_ones_own(tiny_checkpoint):
    policy = motet.load_policy(str(tiny_checkpoint))
    optimizer = motet.Optimizer(policy, learning_rate=0.01, sampling=SAMPLING)
    groups = motet.rollout(policy, "answer", ROWS[:2], num_generations=2, sampling=SAMPLING)
    acts = [one.acts[0] for group in groups for one in group.trajectories]
    before = [replay.log_probs.sum().item() for replay in policy.replay(acts)]
    motet.update(optimizer, groups, [motet.ActWithAdvantage(act, 1.0) for act in acts])
    after = [replay.log_probs.sum().item() for replay in policy.replay(acts)]
    assert sum(after) > sum(before) and optimizer.updates == policy.version == 1


def test_a_kl_freezes_the_reference(tiny_checkpoint):
    policy = motet.load_policy(str(tiny_checkpoint))
    optimizer = motet.Optimizer(policy, algorithm={"beta": 0.1}, learning_rate=0.01, sampling=SAMPLING)

    def step():
        groups = motet.rollout(policy, "answer", ROWS[:2], num_generations=2, sampling=SAMPLING)
        return groups, motet.advantages(groups, motet.score(groups, length))

    first = step()
    assert motet.update(optimizer, *first)["text/kl"] == pytest.approx(0, abs=1e-6)
    assert motet.update(optimizer, *step())["text/kl"] > 1e-4
    with pytest.raises(ConfigError, match="sampled by version 0 of the policy, which has version 2 now"):
        motet.update(optimizer, *first)


def test_rewards_that_ask_for_the_policy(tiny_checkpoint):
    policy = motet.load_policy(str(tiny_checkpoint))
    groups = motet.rollout(policy, "answer", ROWS[:1], num_generations=2, sampling=SAMPLING)

    def versions(completions, policy, **columns):
        return [float(policy.version + 7)] * len(completions)

    scores = motet.score(groups, [versions, {"name": "exact_answer", "weight": 0.5}], policy=policy)
    assert scores.metrics["rewards/versions/mean"] == 7 and "rewards/exact_answer/mean" in scores.metrics


def test_settings_are_checked(tiny_checkpoint):
    policy = motet.load_policy(str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rte.*learning_rate"):
        motet.Optimizer(policy, learning_rte=1.0)
    with pytest.raises(ConfigError, match="max_token"):
        motet.rollout(policy, "answer", ROWS, sampling={"text": {"max_token": 3}})
