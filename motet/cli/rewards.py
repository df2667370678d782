"""`motet rewards` and `motet reward test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

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
    listed: list[dict[str, Any]] = []
    without, with_model = _table("Rewards without a model"), _table("Rewards with a model")
    for name, entry in built_in_rewards().items():
        listed.append({"name": name, "meaning": entry.meaning, **({} if entry.info is None else asdict(entry.info))})
        has_model = entry.info is not None and entry.info.model is not None
        (with_model if has_model else without).add_row(Text(name), _about(entry.meaning, entry.info))
    show_results(Group(without, "", with_model), listed, json_path)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _about(meaning: str, info: RewardInfo | None) -> Text:
    """What the reward measures; range and place; on a line of its own its model with licence and size."""
    if info is None:
        return Text(f"{meaning}\nrange and model not stated")
    place = [] if info.runs == "CPU" else [f"runs: {info.runs}"]
    extra = [] if info.extra is None else [f"needs motet[{info.extra}]"]
    lines = [meaning, "; ".join([info.range, *place, *extra])]
    if info.model is not None:
        lines.append("; ".join(filter(None, (info.model, info.license, info.size))))
    about = Text(lines[0])
    return about.append("".join(f"\n{line}" for line in lines[1:]), style="dim")


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
    columns = {**key_values("--column", given.columns), **({} if given.prompt is None else {"prompt": given.prompt})}
    columns = {name: _column(name, value) for name, value in columns.items()}
    config = RewardConfig(name=given.name, options=key_values("--option", given.options))
    content = given.text if given.text is not None else read_image(str(given.image), Path.cwd(), "motet reward test")
    from motet.report.progress import waiting

    with waiting("load and score"):
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


def key_values(option: str, given: Sequence[str]) -> dict[str, Any]:
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
