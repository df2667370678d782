"""Load the policies and serve the page until it is interrupted. Needs gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motet.core.errors import ConfigError
from motet.policies import load_policy
from motet.report.progress import waiting
from motet.report.terminal import say
from motet.studio.page import StudioPage, require_gradio
from motet.studio.scoring import ImageScorers
from motet.studio.session import StudioSession
from motet.studio.view import style
from motet.weights.locate import resolve_checkpoint

BASE, TRAINED = "base", "trained"
USER = "motet"
"""The user name of a page with a password."""
GRACE = 1.0
"""Seconds that requests under way have after Ctrl-C: an open page always has one, and a generation ends with them."""
MAX_UPLOAD = 32_000_000
"""Bytes of the largest image file that a browser may send."""
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio's pages need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)
"""Content security policy: the browser loads nothing from elsewhere."""


def open_session(
    checkpoint: str, base: str | None, reward: str | None, options: Mapping[str, Any], world: str = "small"
) -> tuple[StudioSession, dict[str, str]]:
    """The session of one or two checkpoints, and where each policy is from. Raises what loading them raises."""
    if options and reward is None:
        raise ConfigError("--option is given without --reward.", fix="add --reward NAME.")
    scorers = ImageScorers(reward, options, world)
    paths = {TRAINED: checkpoint} if base is None else {BASE: base, TRAINED: checkpoint}
    labels = {TRAINED: Path(checkpoint).resolve().name} if base is None else {BASE: BASE, TRAINED: TRAINED}
    with waiting("load the policy" if base is None else "load the policies"):
        policies = {labels[key]: load_policy(resolve_checkpoint(path)) for key, path in paths.items()}
    return StudioSession(policies, scorers), {labels[key]: path for key, path in paths.items()}


def build_app(page: StudioPage, *, token: str | None = None, loopback: bool = True) -> Any:
    """The web application: gradio's, with a content security policy, and for programs of this machine alone if asked.

    With `token`, the page asks for the user `motet` and that password.
    """
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gr, app = require_gradio(), FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    font: Sequence[str] = ("system-ui", "sans-serif")
    mono: Sequence[str] = ("ui-monospace", "monospace")
    app = gr.mount_gradio_app(
        app, page.build(), path="", footer_links=[], show_error=False, ssr_mode=False, css=style(), mcp_server=False,
        theme=gr.themes.Default(primary_hue="indigo", font=font, font_mono=mono), max_file_size=MAX_UPLOAD,
        allowed_paths=[], pwa=False,
        auth=None if token is None else (USER, token), enable_monitoring=False,
    )  # fmt: skip
    app.add_middleware(SecurityHeaders)
    if loopback:  # a page that a user visits cannot reach this one by a DNS name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return app


class SecurityHeaders:
    """ASGI middleware: adds the content security policy to every response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, with_headers)


def serve_studio(
    checkpoint: str,
    *,
    base: str | None,
    reward: str | None,
    options: Mapping[str, Any],
    world: str,
    host: str,
    port: int,
    token_variable: str | None,
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Raises ConfigError where gradio is not installed, for an address that other machines reach without a password, or
    that cannot be listened on, and what `open_session` raises.
    """
    require_gradio()
    from motet.serving.http import Server, bind, is_loopback, read_token

    token = read_token(host, token_variable)
    bound = bind(host, port)
    session, sources = open_session(checkpoint, base, reward, options, world)
    page = StudioPage(session, sources, reward=reward or "shapes")
    app = build_app(page, token=token, loopback=is_loopback(host))
    login = "" if token is None else f", user {USER!r}"

    def announce(url: str) -> None:
        say(f"motet studio is at {url}{login} (Ctrl-C stops it)")

    Server(app, bound, announce=announce, grace=GRACE).answer()
