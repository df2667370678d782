"""The reward `remote`: a reward that a server has (`motet serve-rewards`), called as if it were here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, cast

from motet.rewards.base import ModelReward, reward
from motet.rewards.failures import LostCall, Unscored, Value, call_in_parts
from motet.rewards.info import ENDPOINT, RewardInfo
from motet.rewards.options import check_choice, check_int, check_non_empty, check_number, raise_option_error
from motet.rewards.remote import protocol
from motet.rewards.remote.client import ServiceClient, Unavailable
from motet.rewards.waiting import await_on_thread, run_on_threads

FORMATS: dict[str, protocol.ImageFormat] = {"png": "png", "webp-lossless": "webp"}


@reward("remote", info=RewardInfo(range="that of the served reward", runs=ENDPOINT))
@dataclass(eq=False, kw_only=True)
class RemoteReward(ModelReward):
    """What the reward `reward` of a server returns; `url` is its address, or a list of those of several.

    Requests of `chunk_size` completions are spread over the servers, `concurrency` at a time. One that fails is sent
    again up to `retries` times, to the next server where there are several; one without a whole reply in `timeout`
    seconds on every server, or that is rejected, is repeated in halves to find the completion that is the cause. What
    then has no value is `Unscored`, and handled as `on_failure` says. Columns that the served reward does not take are
    not sent; images are sent losslessly, as `image_format`: png or webp-lossless. `token_variable` names the
    environment variable that holds the server's token.
    """

    name: ClassVar[str] = "remote"

    url: Any
    reward: Any
    token_variable: Any = None
    timeout: Any = 60.0
    retries: Any = 6
    concurrency: Any = 8
    chunk_size: Any = 8
    image_format: Any = "png"
    client: ServiceClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        urls = [self.url] if isinstance(self.url, str) else self.url
        if not isinstance(urls, list) or not urls:
            raise_option_error(self.name, "url", urls, "is not an address or a list of them", fix="write http://...")
        for url in urls:
            if not isinstance(url, str) or not url.startswith(("http://", "https://")):
                raise_option_error(self.name, "url", url, "is not an http(s) address", fix="write http://...")
        check_non_empty(self.name, "reward", self.reward, "name of a reward")
        if self.token_variable is not None:
            check_non_empty(self.name, "token_variable", self.token_variable, "name of an environment variable")
        check_number(self.name, "timeout", self.timeout, 0.001)
        check_int(self.name, "retries", self.retries, 0)
        check_int(self.name, "concurrency", self.concurrency)
        check_int(self.name, "chunk_size", self.chunk_size)
        check_choice(self.name, "image_format", self.image_format, FORMATS)
        addresses = [url.rstrip("/") for url in cast("list[str]", urls)]
        self.client = ServiceClient(addresses, self.reward, self.token_variable, float(self.timeout), self.retries)

    @cached_property
    def info(self) -> protocol.ServedRewardInfo:
        """What the servers say about the reward."""
        return self.client.info()

    @property
    def required_columns(self) -> tuple[str, ...]:
        return tuple(self.info.required_columns)

    @property
    def reads_acts(self) -> tuple[str, ...]:
        return tuple(self.info.reads_acts)

    async def __call__(
        self, prompts: list[Any], completions: list[Any], log_metric: Any, log_extra: Any, **columns: Any
    ) -> list[Value]:
        """One value per completion; `Unscored` where the server gave a reason instead."""
        taken = self.info.accepts
        sent = {
            name: entries
            for name, entries in columns.items()
            if name not in protocol.NOT_COLUMNS and (taken is None or name in taken)
        }
        arguments = {"prompts": prompts, "completions": completions, **sent}
        scoring = _Scoring(self, arguments, len(completions))
        await await_on_thread(scoring.run)
        for name, value in scoring.metrics:
            log_metric(name, value)
        for column, entries in scoring.extra.items():
            log_extra(column, entries)
        return scoring.values


class _Scoring:
    """The requests of one call, and what they bring."""

    def __init__(self, remote: RemoteReward, arguments: Mapping[str, Sequence[Any]], count: int) -> None:
        self.remote, self.arguments, self.count = remote, arguments, count
        self.values: list[Value] = [Unscored("it was not sent.")] * count
        self.metrics: list[tuple[str, float]] = []
        self.extra: dict[str, list[Any]] = {}

    def run(self) -> None:
        """Send all chunks. Raises ConfigError where the servers cannot be used at all."""
        size = self.remote.chunk_size
        chunks = [range(start, min(start + size, self.count)) for start in range(0, self.count, size)]
        replies = run_on_threads(self._score_chunk, enumerate(chunks), self.remote.concurrency)
        for chunk, (values, logged) in zip(chunks, replies, strict=True):
            self.values[chunk.start : chunk.stop] = values
            for places, reply in logged:
                self._take_log([chunk[place] for place in places], reply)

    def _score_chunk(self, numbered: tuple[int, range]) -> tuple[list[Value], list[tuple[Sequence[int], Any]]]:
        """The values of a chunk, and the replies with their places in it."""
        number, chunk = numbered
        logged: list[tuple[Sequence[int], protocol.ScoreReply]] = []

        def call(places: Sequence[int]) -> list[Value]:
            part = [chunk[place] for place in places]
            arguments = {name: [entries[place] for place in part] for name, entries in self.arguments.items()}
            encoded = protocol.encode_arguments(arguments, FORMATS[self.remote.image_format])
            reply = self.remote.client.score(encoded, len(part), number)
            logged.append((places, reply))
            return _values_of(reply)

        return _score_in_parts(call, len(chunk)), logged

    def _take_log(self, places: Sequence[int], reply: protocol.ScoreReply) -> None:
        self.metrics += reply.metrics.items()
        for column, entries in reply.extra.items():
            own = self.extra.setdefault(column, [None] * self.count)
            for place, entry in zip(places, entries, strict=True):
                own[place] = entry


def _score_in_parts(call: Callable[[Sequence[int]], list[Value]], count: int) -> list[Value]:
    """The values of a chunk; a request that is itself the cause of a failure is repeated in halves."""
    try:
        return call(range(count))
    except Unavailable as error:
        return [Unscored(error.problem)] * count
    except LostCall as error:
        values: list[Value] = [Unscored(error.problem)] * count
        if count > 1:
            call_in_parts(call, range(count), values)
        return values


def _values_of(reply: protocol.ScoreReply) -> list[Value]:
    return [
        value if error is None else Unscored(error) for value, error in zip(reply.values, reply.errors, strict=True)
    ]
