"""`motet serve-rewards`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from motet.core.errors import MotetError
from motet.report.terminal import say
from motet.serving.rewards_config import load_service


def serve_rewards(path: Path, overrides: Sequence[str]) -> None:
    """Answer requests until Ctrl-C or SIGTERM; requests under way finish. Raises MotetError."""
    config = load_service(path, overrides)
    from motet.serving.http import Server, bind, read_token
    from motet.serving.rewards_service import RewardService, build_app

    token = read_token(config.host, config.token_variable, key="token_variable")
    stop: list[Callable[[MotetError], None]] = []
    service = RewardService(config, lambda error: stop[0](error))
    routes = ", ".join(service.queues)
    server = Server(
        build_app(service, token),
        bind(config.host, config.port),
        announce=lambda url: say(f"Serving {routes} on {url} (API: {url}/docs)."),
        grace=max(served.timeout for served in config.rewards) + 1.0,
    )
    stop.append(server.fail)
    server.answer()
