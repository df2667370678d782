"""The model `motet` of lmms-eval: any checkpoint that motet loads.

    lmms_eval --model motet --model_args pretrained=checkpoints/shapes_janus --tasks mmstar

`model_args`: `pretrained`, a checkpoint or run folder, or a hub id; `max_new_tokens`, the most tokens of an answer
whatever the task asks for; `device`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]

from motet.config import PolicyConfig
from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request
from motet.core.sampling import Sampling
from motet.core.trajectory import Act, TextAct
from motet.evaluation.lmms_eval.requests import conversation_of, sampling_of, stops_of
from motet.policies import load_policy
from motet.weights.locate import resolve_checkpoint


class MotetModel(lmms):
    """Answers lmms-eval's requests with a policy: a checkpoint that is loaded, or one that is given."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "",
        *,
        policy: Policy | None = None,
        batch_size: int | str = 16,
        max_new_tokens: int = 512,
        device: str | None = None,
        max_batch_size: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """`progress(done, total)` is called after every batch. Raises ConfigError for a checkpoint without text."""
        super().__init__()
        if policy is None:
            if not pretrained:
                raise ConfigError("lmms_eval --model motet has no checkpoint.", fix="--model_args pretrained=FOLDER.")
            path = str(resolve_checkpoint(pretrained))
            policy = load_policy(path, None if device is None else PolicyConfig(path=path, device=device))
        if "text" not in policy.kinds:
            raise ConfigError("The policy generates no text.", fix="choose a checkpoint that answers questions.")
        self.policy, self.max_new_tokens, self.progress = policy, int(max_new_tokens), progress
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else 16

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The text of each request."""
        asked = [(*self._shown(request.args), request.args[1], request.args[4]) for request in requests]
        samplings = [sampling_of(task, settings, self.max_new_tokens) for _, settings, task in asked]
        texts: list[str] = []
        for sampling, group in groupby(zip(asked, samplings, strict=True), key=lambda pair: pair[1]):
            for batch in _batches([pair[0] for pair in group], self.batch_size):
                contexts = [context for context, _, _ in batch]
                acts = self._act(contexts, sampling, len(texts))
                texts += [_until(act, stops_of(settings)) for act, (_, settings, _) in zip(acts, batch, strict=True)]
                self.progress(len(texts), len(requests))
        return texts

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """The loss of each continuation, and whether greedy decoding gives it.

        As in the harness's other models: the mean negative log-prob of its tokens, of which its tasks choose the least.
        """
        results: list[Any] = []
        for batch in _batches(list(requests), self.batch_size):
            pairs = [self._continued(request.args) for request in batch]
            asked = [Request("text", "text", context, (0, n)) for n, (context, _) in enumerate(pairs)]
            targets = self.policy.encode_targets(asked, [text for _, text in pairs])
            longest = max(act.num_actions for act in targets)
            greedy = self._act([context for context, _ in pairs], Sampling(temperature=0.0, max_tokens=longest), 0)
            with torch.no_grad():
                replays = self.policy.replay(targets)
            for act, replay, best in zip(targets, replays, greedy, strict=True):
                ids = _ids(act)[:-1]  # without the end of the turn
                loss = -float(replay.log_probs[: len(ids)].mean())
                # Without the wrapper lmms-eval 0.7.3 makes a string of the pair.
                results.append(GenerationResult((loss, _ids(best)[: len(ids)] == ids)))
            self.progress(len(results), len(requests))
        return results

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Rejected: such tasks decide what to ask next from answers, in a form of their own."""
        raise ConfigError("motet does not support tasks of several rounds.", fix="choose another task.")

    def _shown(self, args: Sequence[Any]) -> tuple[Conversation]:
        text, _, visuals, doc_id, task, split = args[:6]
        return (conversation_of(text, visuals(self.task_dict[task][split][doc_id])),)

    def _continued(self, args: Sequence[Any]) -> tuple[Conversation, str]:
        text, target, visuals, doc_id, task, split = args
        doc = self.task_dict[task][split][doc_id]
        return conversation_of(text, visuals(doc)), str(target(doc) if callable(target) else target)

    def _act(self, contexts: Sequence[Conversation], sampling: Sampling, first: int) -> list[Act]:
        requests = [Request("text", "text", context, (0, first + n, 0)) for n, context in enumerate(contexts)]
        return self.policy.act(requests, sampling)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _ids(act: Act) -> list[int]:
    ids = act.token_ids
    return [] if ids is None else ids.tolist()


def _until(act: Act, stops: Sequence[str]) -> str:
    assert isinstance(act, TextAct)
    places = [place for stop in stops if (place := act.text.find(stop)) >= 0]
    return act.text[: min(places)] if places else act.text
