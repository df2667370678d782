"""`motet serve`: a checkpoint behind OpenAI's routes."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint folder, a run folder, or a hub id.")],
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; default: the folder's.")] = None,
    token_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the bearer token that requests must carry.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Most replies or images generated at once.")] = 16,
    max_queue: Annotated[int, typer.Option(min=1, help="Most requests that wait; further ones get status 429.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a reply, unless a request says.")] = 256,
    max_request_mb: Annotated[float, typer.Option(min=0.001, help="Most megabytes of a request.")] = 32.0,
) -> None:
    """Serve a checkpoint to OpenAI clients: chat with images, and image generation."""
    from motet.serving.openai_app import ServerLimits
    from motet.serving.openai_server import serve_checkpoint

    limits = ServerLimits(max_batch, max_queue, max_tokens, int(max_request_mb * 1e6))
    serve_checkpoint(checkpoint, host=host, port=port, name=name, token_variable=token_variable, limits=limits)
