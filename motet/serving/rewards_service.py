"""A reward service: its routes, and the rewards behind them from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Path, Request, Response

from motet.core.errors import DataError, MotetError, RewardError
from motet.core.images import OversizedImage
from motet.core.registry import did_you_mean, first_line
from motet.rewards.remote.protocol import (
    HEALTH_PATH,
    METRICS_PATH,
    REWARDS_PATH,
    SCORE_PATH,
    ErrorBody,
    RewardList,
    ScoreReply,
    ScoreRequest,
    check_encoded_image,
    encoded_images,
    parse_request,
)
from motet.serving.http import Guard, HttpError, is_loopback, make_app, wait_until_gone
from motet.serving.rewards_batching import RewardQueue
from motet.serving.rewards_config import LimitsConfig, ServiceConfig
from motet.serving.rewards_metrics import CONTENT_TYPE, ServiceMetrics
from motet.serving.rewards_runner import RETRY_AFTER, State, make_runner

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not JSON, or not for this host"},
    401: {"description": "The token is missing or wrong"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The request, or one of its images, is too large"},
    422: {"description": "The request is malformed"},
    429: {"description": "Too many requests wait"},
    503: {"description": "The reward is not ready, or its process died"},
}
_ERRORS = {status: {"model": ErrorBody, **meaning} for status, meaning in _ERRORS.items()}
_REWARD_ERRORS = {
    404: {"model": ErrorBody, "description": "There is no such reward"},
    504: {"model": ErrorBody, "description": "The reward took longer than its limit"},
}


class RewardService:
    """The rewards of a configuration, by their names in the path.

    Raises ConfigError for a reward that cannot be resolved. `fail` is called with the error of one that cannot be
    loaded at the start.
    """

    def __init__(self, config: ServiceConfig, fail: Callable[[MotetError], None]) -> None:
        self.config, self.metrics, self.fail = config, ServiceMetrics(), fail
        self.queues: Mapping[str, RewardQueue] = {
            served.route: RewardQueue(
                served.route, make_runner(served), config.batching, config.limits.queue, self.metrics
            )
            for served in config.rewards
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the rewards in the background and answer requests as they become ready."""
        tasks = [asyncio.create_task(queue.run()) for queue in self.queues.values()]
        tasks.append(asyncio.create_task(self._load()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(queue.runner.close() for queue in self.queues.values()))

    async def _load(self) -> None:
        try:
            for queue in self.queues.values():
                await queue.runner.start()
        except Exception as error:
            if not isinstance(error, MotetError):
                cause = error
                error = RewardError(f"The rewards cannot be loaded: {first_line(cause)}.", fix="see the traceback.")
                error.__cause__ = cause
            self.fail(error)

    @property
    def ready(self) -> bool:
        """Whether every reward is."""
        return all(queue.runner.state is State.READY for queue in self.queues.values())

    def queue(self, route: str) -> RewardQueue:
        """The queue of a reward. Raises HttpError where there is none."""
        if route not in self.queues:
            problem = f"There is no reward {route!r:.80}; there are: {', '.join(self.queues)}."
            raise HttpError(404, f"{problem}{did_you_mean(route[:80], self.queues)}", fix=f"see {REWARDS_PATH}.")
        return self.queues[route]

    async def score(self, route: str, request: Request) -> ScoreReply:
        """The reply to a request. Raises HttpError; a client that goes takes its request out of the queue."""
        start, status = time.perf_counter(), 500
        try:
            queue = self.queue(route)
            body = await request.body()
            parsed = await asyncio.to_thread(read_request, body, self.config.limits)
            _check_columns(parsed, queue)
            scoring = asyncio.ensure_future(queue.score(parsed))
            gone = asyncio.ensure_future(wait_until_gone(request))
            try:
                await asyncio.wait({scoring, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not scoring.done():
                    status = 499
                    raise HttpError(400, "The connection was closed.", fix="wait for the reply.")
                reply = scoring.result()
            finally:
                gone.cancel()
                scoring.cancel()
            status = 200
            return reply
        except HttpError as error:
            status = error.status if status == 500 else status
            raise
        finally:
            known = route if route in self.queues else "unknown"
            self.metrics.requests.add(reward=known, status=str(status))
            if status == 200:
                self.metrics.latency.add(time.perf_counter() - start, reward=known)

    def metrics_text(self) -> str:
        """Prometheus' page."""
        queues = self.queues.items()
        return self.metrics.text(
            {
                "ready": {route: float(queue.runner.state is State.READY) for route, queue in queues},
                "queue_length": {route: float(queue.length) for route, queue in queues},
                "restarts": {route: float(queue.runner.restarts) for route, queue in queues},
            }
        )


def read_request(body: bytes, limits: LimitsConfig) -> ScoreRequest:
    """The request in a body, within the limits. Raises HttpError: 413 or 422."""
    try:
        request = parse_request(body)
    except DataError as error:
        raise HttpError(422, error.problem, fix=error.fix) from None
    seen: set[str] = set()
    for number, data in enumerate(encoded_images(request), 1):
        if number > limits.images:
            problem = f"The request has more than {limits.images:,} images."
            raise HttpError(413, problem, fix="send fewer completions in one request.")
        if not isinstance(data, str) or data in seen:
            continue  # what is not text is an error of its completion
        seen.add(data)
        try:
            check_encoded_image(data, limits.pixels)
        except OversizedImage as error:
            raise HttpError(413, error.problem, fix="send smaller images.") from None
        except DataError:
            pass  # an error of its completion, which decoding finds again
    return request


def _check_columns(request: ScoreRequest, queue: RewardQueue) -> None:
    missing = [name for name in queue.runner.info.required_columns if name not in request.columns]
    if missing:
        problem = f"Reward {queue.route!r} requires the columns {', '.join(missing)}, which the request does not have."
        raise HttpError(422, problem, fix=f"send them; {REWARDS_PATH} lists what each reward requires.")


def build_app(service: RewardService, token: str | None) -> FastAPI:
    """The application with its routes, limits and token."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = make_app("motet reward service", version=version("motet"), lifespan=lifespan)
    limits = service.config.limits
    app.add_middleware(
        Guard,  # pyright: ignore[reportArgumentType]  # its receive and send are functions of mappings too
        token=token,
        max_bytes=limits.request_bytes,
        max_held=limits.held_bytes,
        loopback=is_loopback(service.config.host),
    )
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: RewardService) -> None:
    body = {"content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}, "required": True}

    @app.post(
        SCORE_PATH,
        response_model=ScoreReply,
        responses={**_ERRORS, **_REWARD_ERRORS},
        openapi_extra={"requestBody": body},
    )
    async def score(request: Request, reward: str = Path(json_schema_extra={"enum": [*service.queues]})) -> Response:
        """Score completions: one value or one error for each."""
        reply = await service.score(reward, request)
        return Response(reply.model_dump_json(), media_type="application/json")

    @app.get(REWARDS_PATH, responses={key: _ERRORS[key] for key in (400, 401, 413, 503)})
    async def rewards() -> RewardList:
        """The rewards, and what to send to them."""
        if not service.ready:
            raise HttpError(
                503, "The rewards are not ready.", fix="ask again later.", headers={"Retry-After": str(RETRY_AFTER)}
            )
        return RewardList(rewards=[queue.runner.info for queue in service.queues.values()])

    @app.get(HEALTH_PATH, responses={503: {"description": "A reward is not ready"}, 400: _ERRORS[400]})
    async def health(response: Response) -> dict[str, Any]:
        """Whether every reward is ready, and the state of each."""
        response.status_code = 200 if service.ready else 503
        states = {route: queue.runner.state.value for route, queue in service.queues.items()}
        return {"ready": service.ready, "rewards": states}

    @app.get(METRICS_PATH, response_class=Response, responses={200: {"content": {"text/plain": {}}}, 401: _ERRORS[401]})
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics_text(), headers={"Content-Type": CONTENT_TYPE})
