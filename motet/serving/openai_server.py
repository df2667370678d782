"""Load a checkpoint and serve it with OpenAI's routes, until it is interrupted."""

from __future__ import annotations

from pathlib import Path

from motet.policies import load_policy
from motet.report.terminal import say
from motet.serving.http import Server, bind, read_token
from motet.serving.openai_app import ServerLimits, build_app
from motet.weights.locate import resolve_checkpoint


def serve_checkpoint(
    checkpoint: str,
    *,
    host: str,
    port: int,
    name: str | None = None,
    token_variable: str | None = None,
    limits: ServerLimits | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. `name` is the model's name for clients; None: the checkpoint's last part.

    Raises ConfigError for an address that other machines reach without a token, or that cannot be listened on, and
    what `motet.policies.load_policy` raises.
    """
    token = read_token(host, token_variable)
    bound = bind(host, port)
    policy = load_policy(resolve_checkpoint(checkpoint))
    model = name or Path(checkpoint).resolve().name
    app = build_app(policy, model, token=token, limits=limits)
    Server(app, bound, announce=lambda url: say(f"motet serves {model!r} at {url}/v1 (Ctrl-C stops it)")).answer()
