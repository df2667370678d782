"""Client of reward services (`motet.rewards.remote.protocol`): several servers, bounded retries, time limits.

A request that a server cannot answer for now (no connection, 408, 429, 500, 502, 503, a reply that is cut off or
malformed) is sent again, to the next server where there are several. When every server was tried it waits: 1 s, then
2, 4, ... up to 30, with jitter, and at least as long as Retry-After says.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import ValidationError

from motet.core.errors import ConfigError, RewardError
from motet.core.registry import did_you_mean, first_line
from motet.rewards.failures import LostCall
from motet.rewards.http import authorization, fetch, is_temporary
from motet.rewards.remote.protocol import (
    REWARDS_PATH,
    SCORE_PATH,
    RewardList,
    ScoreReply,
    ServedRewardInfo,
    parse_error,
    parse_reply,
)

LARGEST_REPLY = 1 << 26
"""Bytes of a reply that are read."""
BACKOFF, LONGEST_WAIT = 1.0, 30.0
"""Seconds of the first and of the longest wait between two attempts."""


class Unavailable(RewardError):
    """No server answered, after all retries."""


@dataclass(frozen=True)
class ServiceClient:
    """Requests for one reward of a service; `urls` are servers that all have it, without a slash at the end."""

    urls: Sequence[str]
    reward: str
    token_variable: str | None = None
    timeout: float = 60.0
    retries: int = 6

    def info(self) -> ServedRewardInfo:
        """What the servers say about the reward. Raises ConfigError where one does not have it, Unavailable."""
        found: list[ServedRewardInfo] = []
        for url in self.urls:
            raw = self._ask([url], REWARDS_PATH, None, _parse_list)
            known = {one.name: one for one in raw.rewards}
            if self.reward not in known:
                raise ConfigError(
                    f"rewards.options.reward={self.reward!r} of 'remote' is not served by {url}; it has: "
                    f"{', '.join(known) or 'none'}.{did_you_mean(self.reward, known)}",
                    fix="correct rewards.options.reward, or the configuration of the server.",
                )
            found.append(known[self.reward])
        return found[0]

    def score(self, arguments: Mapping[str, Any], count: int, first: int = 0) -> ScoreReply:
        """The reply to a request with encoded arguments of `count` completions; server number `first` is asked first.

        Raises Unavailable when the retries are used up, LostCall when the request itself seems to be the cause: it was
        rejected, or the reward took too long on every server. ConfigError for a wrong token or name.
        """
        start = first % len(self.urls)
        urls = [*self.urls[start:], *self.urls[:start]]
        path = SCORE_PATH.format(reward=self.reward)
        return self._ask(urls, path, json.dumps(arguments).encode(), lambda raw: parse_reply(raw, count))

    def _ask(self, urls: Sequence[str], path: str, body: bytes | None, parse: Any) -> Any:
        headers = authorization(self.token_variable, "rewards.options.token_variable", "remote")
        headers |= {"Content-Type": "application/json"}
        settings: dict[str, Any] = {"timeout": self.timeout, "largest": LARGEST_REPLY}
        settings["too_large"] = "lower rewards.options.chunk_size."
        reason, slow = "", 0
        for attempt in range(self.retries + 1):
            url, pause = urls[attempt % len(urls)], 0.0
            try:
                return parse(fetch(url + path, body, headers, **settings))
            except urllib.error.HTTPError as error:
                reason = f"{url} answered {error.code}: {_text_of(error)}"
                if not is_temporary(error):
                    _raise_rejected(error.code, reason, path)
                slow += error.code == 504
                pause = _retry_after(error)
            except TimeoutError as error:
                reason = f"{url}: {error}"
                slow += 1
            except (OSError, http.client.HTTPException, RewardError) as error:
                what = error.problem if isinstance(error, RewardError) else first_line(error)
                reason = f"{url}: {what}"
            if slow >= len(urls):
                raise LostCall(
                    f"The served reward {self.reward!r} took too long: {reason}.",
                    fix="increase rewards.options.timeout, or the limit of the server.",
                )
            if attempt < self.retries and (attempt + 1) % len(urls) == 0:
                wait = min(BACKOFF * 2 ** (attempt // len(urls)), LONGEST_WAIT) * random.uniform(0.5, 1.0)
                time.sleep(max(wait, min(pause, LONGEST_WAIT)))
        raise Unavailable(
            f"The served reward {self.reward!r} did not answer in {self.retries + 1} attempts; the last: {reason}.",
            fix="see whether the server runs: motet serve-rewards; then resume.",
        )


def _parse_list(raw: bytes) -> RewardList:
    try:
        return RewardList.model_validate_json(raw)
    except ValidationError:
        raise RewardError(
            f"The reply is not a list of rewards: {raw[:80]!r}.",
            fix="give the address of motet serve-rewards, without a path.",
        ) from None


def _text_of(error: urllib.error.HTTPError) -> str:
    """What the body of an error says; reading it may fail as any reply may."""
    try:
        return parse_error(error.read(1 << 16))
    except (OSError, http.client.HTTPException):
        return "its message is cut off"
    finally:
        error.close()


def _retry_after(error: urllib.error.HTTPError) -> float:
    value = (error.headers or {}).get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _raise_rejected(code: int, reason: str, path: str) -> NoReturn:
    if code in (400, 413, 422):
        raise LostCall(
            f"{reason}.", fix="send what the server accepts: see its limits, and rewards.options.chunk_size."
        )
    fix = {
        401: "set rewards.options.token_variable to the environment variable that holds the server's token.",
        403: "set rewards.options.token_variable to the environment variable that holds the server's token.",
        404: f"check that rewards.options.url is a motet serve-rewards that has {path}.",
    }.get(code, "check rewards.options.url.")
    raise ConfigError(f"rewards.options.url of 'remote': {reason}.", fix=fix)
