"""A reward in a process of its own: `python -m motet.serving.rewards_worker`, started by `rewards_runner.py`.

The first message is a ServedReward, answered by a Hello. Every further one is a ScoreRequest, answered by a ScoreReply.
"""

from __future__ import annotations

from pydantic import BaseModel

from motet.core.errors import MotetError
from motet.core.registry import first_line
from motet.rewards.remote.protocol import Error, ScoreRequest, ServedRewardInfo
from motet.rewards.worker_process import answer_messages
from motet.serving.rewards_config import ServedReward
from motet.serving.rewards_loading import LoadedReward, load_models, resolve_served
from motet.serving.rewards_scoring import score


class Hello(BaseModel):
    """What a worker says first: which reward it has, or why it has none."""

    info: ServedRewardInfo | None = None
    logs: bool = False
    error: Error | None = None


class _Worker:
    """Answers the first message by loading the reward, every further one by a call."""

    def __init__(self) -> None:
        self._loaded: LoadedReward | None = None

    def __call__(self, body: bytes) -> bytes:
        if self._loaded is None:
            reply = self._load(ServedReward.model_validate_json(body))
        else:
            reply = score(self._loaded, ScoreRequest.model_validate_json(body))
        return reply.model_dump_json().encode()

    def _load(self, served: ServedReward) -> Hello:
        try:
            loaded = resolve_served(served)
            load_models(loaded, served.device)
        except MotetError as error:
            return Hello(error=Error(problem=error.problem, fix=error.fix))
        except (Exception, SystemExit) as error:
            problem = f"Reward {served.name!r} cannot be loaded: {first_line(error)}."
            return Hello(error=Error(problem=problem, fix="correct its options."))
        self._loaded = loaded
        return Hello(info=loaded.info, logs=loaded.logs)


if __name__ == "__main__":
    answer_messages(_Worker())
