"""`motet rewards` and `motet reward test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.cli.outputs import show_results
from motet.config.schema import RewardConfig
from motet.config.yaml import Unreadable, from_yaml
from motet.core.errors import ConfigError
from motet.core.images import read_image
from motet.report.terminal import say
from motet.rewards import built_in_rewards
from motet.rewards.info import RewardInfo
from motet.rewards.single import score_one


def list_rewards(json_path: Path | None) -> None:
    """Print the table of rewards, and write it as JSON if asked."""
    table = Table(title="Rewards", title_justify="left", pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("range", "model, licence, size", "runs on"):
        table.add_column(heading, overflow="fold")
    listed: list[dict[str, Any]] = []
    for name, entry in built_in_rewards().items():
        listed.append({"name": name, "meaning": entry.meaning, **({} if entry.info is None else asdict(entry.info))})
        table.add_row(escape(name), *(map(escape, _cells(entry.info))))
    show_results(table, listed, json_path)


def _cells(info: RewardInfo | None) -> tuple[str, str, str]:
    if info is None:
        return "", "not stated", ""
    model = "no model" if info.model is None else "; ".join(filter(None, (info.model, info.license, info.size)))
    extra = "" if info.extra is None else f"; needs motet[{info.extra}]"
    return info.range, model, f"{info.runs}{extra}"


@dataclass(frozen=True)
class RewardTest:
    """What `motet reward test` was given."""

    name: str
    image: Path | None
    prompt: str | None
    text: str | None
    options: Sequence[str]
    columns: Sequence[str]
    policy: str | None


def test_reward(given: RewardTest) -> None:
    """Print the reward of one image or text, and what the reward logs."""
    if (given.image is None) == (given.text is None):
        what = "neither an image nor --text is" if given.image is None else "both an image and --text are"
        raise ConfigError(
            f"motet reward test: {what} given.", fix='motet reward test NAME IMAGE.png "PROMPT", or --text TEXT.'
        )
    columns = {**_pairs("--column", given.columns), **({} if given.prompt is None else {"prompt": given.prompt})}
    columns = {name: _column(name, value) for name, value in columns.items()}
    config = RewardConfig(name=given.name, options=_pairs("--option", given.options))
    content = given.text if given.text is not None else read_image(str(given.image), Path.cwd(), "motet reward test")
    value, metrics = score_one(config, content, columns, _policy(given.policy))
    say(f"{given.name}: {'does not apply to this row (None)' if value is None else f'{value:.6g}'}")
    for name, metric in metrics.items():
        say(f"{name}: {metric:.6g}")


def _policy(checkpoint: str | None) -> Any:
    if checkpoint is None:
        return None
    from motet.policies import load_policy
    from motet.weights.locate import resolve_checkpoint

    return load_policy(resolve_checkpoint(checkpoint))


def _pairs(option: str, given: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts; values are YAML, as in overrides of a recipe."""
    pairs: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"{option} {text!r} is not key=value.", fix=f"write {option} key=value.")
        try:
            pairs[key] = value if value.startswith("@") else from_yaml(value)
        except Unreadable as error:
            raise ConfigError(f"{option} {text!r}: {error}", fix="quote the value.") from None
    return pairs


def _column(name: str, value: Any) -> Any:
    """The value of a column: `@FILE` is an image; `images` is a list of them."""
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    image = read_image(value[1:], Path.cwd(), f"--column {name}")
    return [image] if name == "images" else image
