"""The web application of `motet serve`: OpenAI's chat completions and image generations for one policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from motet.core.act_kinds import Makes, act_kind, kinds_making
from motet.core.conversation import Conversation, user
from motet.core.errors import MotetError
from motet.core.protocols import Policy
from motet.core.trajectory import Act, TextAct
from motet.serving.http import Guard, HttpError, make_app, wait_until_gone
from motet.serving.openai_image_size import image_size
from motet.serving.openai_queue import GenerationQueue, Job, act_requests, as_http_error
from motet.serving.openai_replies import END, ChunkWriter, chat_completion, event, images_reply
from motet.serving.openai_requests import ChatRequest, ImagesRequest, read_messages
from motet.serving.openai_text import TextPieces, finished_text, text_decoder

T = TypeVar("T")

HELD_REQUESTS = 8
"""Bodies of the largest size that are held in memory at once."""


@dataclass(frozen=True)
class ServerLimits:
    """What a server accepts. `max_batch` acts are generated at once, and at most so many are asked for in a request;
    `max_queue` requests wait; `max_tokens` is the length of a reply whose request names none."""

    max_batch: int = 16
    max_queue: int = 64
    max_tokens: int = 256
    max_bytes: int = 32 << 20


def build_app(policy: Policy, name: str, *, token: str | None = None, limits: ServerLimits | None = None) -> FastAPI:
    """The application for one policy, which it calls the model `name`. Its queue ends with its lifespan."""
    limits = limits or ServerLimits()
    server = _OpenAIServer(policy, name, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.queue = GenerationQueue(policy, max_batch=limits.max_batch, max_waiting=limits.max_queue)
        yield
        await run_in_threadpool(server.queue.stop)

    app = make_app("motet serve", lifespan=lifespan)
    held = HELD_REQUESTS * limits.max_bytes
    app.add_middleware(Guard, token=token, max_bytes=limits.max_bytes, max_held=held, loopback=token is None)
    app.add_api_route("/v1/chat/completions", server.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/images/generations", server.images, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", server.models, methods=["GET"])
    app.add_api_route("/v1/models/{model:path}", server.model, methods=["GET"])
    app.add_api_route("/health", server.health, methods=["GET"], response_model=None)
    return app


class _OpenAIServer:
    queue: GenerationQueue

    def __init__(self, policy: Policy, name: str, limits: ServerLimits) -> None:
        self.policy, self.name, self.limits = policy, name, limits
        self.decode, self.image_size = text_decoder(policy), image_size(policy)
        self.created = int(time.time())

    async def chat(self, request: Request, asked: ChatRequest) -> Response:
        """A chat completion, whole or streamed."""
        kind = self._check(asked, "text")
        context = await run_in_threadpool(read_messages, asked.messages)
        job = self._job(kind, context, asked, asked.sampling_changes(self.limits.max_tokens))
        if asked.stream:
            stream = _ChatStream(self.queue, job, self.decode, asked.stops)
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return await stream.response(request, ChunkWriter(self.name), usage)
        acts = await self._result(job, request)
        return JSONResponse(chat_completion(self.name, acts, asked.stops))

    async def images(self, request: Request, asked: ImagesRequest) -> Response:
        """Generated images."""
        kind = self._check(asked, "image")
        self._check_size(asked.size)
        job = self._job(kind, user(asked.prompt), asked, asked.sampling_changes())
        acts = await self._result(job, request)
        return JSONResponse(await run_in_threadpool(images_reply, acts))

    async def models(self) -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, model: str) -> dict[str, Any]:
        """The one model, by its name."""
        self._check_model(model)
        return self._model()

    async def health(self) -> Response:
        """200 while requests are answered."""
        ready = self.queue.running
        content = {"status": "ready" if ready else "stopped", "waiting": len(self.queue)}
        return JSONResponse(content, 200 if ready else 503)

    def _model(self) -> dict[str, Any]:
        makes = {act_kind(kind).makes for kind in self.policy.kinds}
        record = {"id": self.name, "object": "model", "created": self.created, "owned_by": "motet"}
        return {**record, "generates": sorted(makes)}

    def _check_model(self, model: str) -> None:
        if model != self.name:
            raise HttpError(
                404,
                f"The model {model[:80]!r} is not served.",
                fix=f"ask for {self.name!r}.",
                param="model",
                code="model_not_found",
            )

    def _check(self, asked: ChatRequest | ImagesRequest, makes: Makes) -> str:
        """The kind of act that the request is for. Raises HttpError for what is not supported."""
        self._check_model(asked.model)
        asked.check_extra_fields()
        if asked.n is not None and asked.n > self.limits.max_batch:
            fix = f"ask for at most {self.limits.max_batch}, or start the server with a larger --max-batch."
            raise HttpError(400, f"n={asked.n} is too large.", fix=fix, param="n", code="invalid_value")
        kinds = kinds_making(makes, self.policy.kinds)
        if not kinds:
            able = " and ".join(sorted({act_kind(kind).makes for kind in self.policy.kinds}))
            fix = "use /v1/images/generations." if makes == "text" else "use /v1/chat/completions."
            problem = f"The model {self.name!r} generates {able} only, not {makes}."
            raise HttpError(400, problem, fix=fix, param="model", code="unsupported_route")
        return kinds[0]

    def _check_size(self, size: str | None) -> None:
        own = None if self.image_size is None else "{}x{}".format(*self.image_size)
        if size not in (None, "auto", own):
            can = "auto only" if own is None else f"{own} only"
            problem = f"size={size[:40]!r}: the model {self.name!r} supports {can}."
            raise HttpError(400, problem, fix="leave size out.", param="size", code="invalid_value")

    def _job(
        self, kind: str, context: Conversation, asked: ChatRequest | ImagesRequest, changes: dict[str, Any]
    ) -> Job:
        record = act_kind(kind)
        try:
            sampling = record.sampling(**{**record.interactive, **changes})
        except MotetError as error:
            raise as_http_error(error) from error
        return Job(act_requests(kind, context, asked.n or 1, asked.key_seed), sampling)

    async def _result(self, job: Job, request: Request) -> list[Act]:
        return await _unless_gone(asyncio.wrap_future(self.queue.submit(job).future), job, request)


async def _unless_gone(waited: Awaitable[T], job: Job, request: Request) -> T:
    """What is waited for; when the client goes away first, the job is abandoned."""
    future, gone = asyncio.ensure_future(waited), asyncio.ensure_future(wait_until_gone(request))
    try:
        await asyncio.wait([future, gone], return_when=asyncio.FIRST_COMPLETED)
        job.abandoned = not future.done()
        return await future
    finally:
        gone.cancel()


class _ChatStream:
    """A chat completion as server-sent events, while the text is generated."""

    def __init__(self, queue: GenerationQueue, job: Job, decode: Any, stops: Sequence[str]) -> None:
        self.queue, self.job, self.stops = queue, job, stops
        self.pieces = [TextPieces(stops) for _ in job.requests]
        self.events: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def on_tokens(index: int, ids: Tensor) -> None:
            if piece := self.pieces[index].take(decode(ids)):
                loop.call_soon_threadsafe(self.events.put_nowait, (index, piece))

        job.on_tokens = on_tokens if decode is not None else None
        job.future.add_done_callback(lambda _: loop.call_soon_threadsafe(self.events.put_nowait, None))

    async def response(self, request: Request, writer: ChunkWriter, usage: bool) -> Response:
        """Begins with the first text, so that an error before it has a status of its own."""
        self.queue.submit(self.job)
        first = await _unless_gone(self.events.get(), self.job, request)
        if first is None:
            self.job.future.result()  # raises what went wrong
        return StreamingResponse(self._events(writer, usage, first), media_type="text/event-stream")

    async def _events(self, writer: ChunkWriter, usage: bool, piece: tuple[int, str] | None) -> AsyncIterator[str]:
        try:
            for index in range(len(self.pieces)):
                yield writer.first(index)
            while piece is not None:
                yield writer.text(*piece)
                piece = await self.events.get()
            try:
                acts = self.job.future.result()
            except HttpError as error:
                yield event(error.body)
                return
            for index, act in enumerate(acts):
                assert isinstance(act, TextAct)
                text, reason = finished_text(act, self.stops)
                if rest := self.pieces[index].rest(text):
                    yield writer.text(index, rest)
                yield writer.last(index, reason)
            if usage:
                yield writer.usage(acts)
            yield END
        finally:  # also where the client has gone
            self.job.abandoned = True
