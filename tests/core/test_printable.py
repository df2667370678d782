"""Nothing that a model, a file or a user wrote commands the terminal, and no password in an address shows."""

import ast
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

from motet.config import load_recipe, parse_recipe, to_yaml
from motet.config.keys import show
from motet.core.errors import ConfigError
from motet.core.printable import plural, printable, without_passwords
from motet.policies.janus import JanusPolicy
from motet.report.progress import ProgressBar
from motet.report.terminal import Terminal, say
from tests.runs import motet_command, write_recipe

HOSTILE = "\x1b[31mred\x1b[2J\x9b2J\u202edlrow\u2066\u200b\x07\x00\ud800\u2028"
ESCAPED = r"\x1b[31mred\x1b[2J\x9b2J\u202edlrow\u2066\u200b\x07\x00\ud800\u2028"
PACKAGE = Path(__file__).parent.parent.parent / "motet"


def commands(text: str) -> list[str]:
    """What in a text is not for the eye."""
    return re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)


def test_what_commands_a_terminal_is_escaped():
    assert printable(HOSTILE) == ESCAPED and printable(ESCAPED) == ESCAPED
    assert printable("a\tb\nc\r\n") == "a\tb\nc\\r\n" and printable("a\nb", lines=False) == r"a\nb"
    kept = "é 日本語 العربية می\u200cخواهم 👨\u200d👩 x²"  # joiners are part of words and of emoji
    assert printable(kept) == kept


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("asked http://me:pa:s@s@host:80/v1 twice", "asked http://***@host:80/v1 twice"),
        ("'https://token@host/v1'", "'https://***@host/v1'"),
        ("https://h/v1?api_key=abc&x=1&Access_Token=z#a", "https://h/v1?api_key=***&x=1&Access_Token=***#a"),
        ("https://h/?X-Amz-Signature=12ab&user=me", "https://h/?X-Amz-Signature=***&user=me"),
        ("mail me@host or http://host/a@b?page=2", "mail me@host or http://host/a@b?page=2"),
    ],
)
def test_passwords_in_addresses_are_hidden(text, shown):
    assert without_passwords(text) == shown


def test_errors_are_safe_to_print():
    error = ConfigError(f"The key {HOSTILE} of http://me:secret@host is unknown.", fix=f"remove {HOSTILE}.")
    assert not commands(str(error)) and ESCAPED in str(error) and "secret" not in str(error)
    assert commands(error.problem)  # what is handled further stays as it is


def test_a_console_keeps_its_own_codes_and_no_others(capsys):
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=200, color_system="standard")
    table = Table(title=HOSTILE)
    table.add_column(Text(HOSTILE))
    table.add_row(Text(HOSTILE, style="red"))
    console.print(table)
    console.print(HOSTILE, markup=False)
    console.rule(HOSTILE)
    with ProgressBar(console) as bar:
        bar.on_step_end(1, {f"rewards/{HOSTILE}/mean": 0.5})
    own = re.sub(r"\x1b\[\??[0-9;]*[mlhKA]", "", out.getvalue()).replace("\r", "")
    assert not commands(own) and own.count(r"\x1b[31mred\x1b[2J\x9b2J") >= 4
    assert "\x1b[31m\\x1b[31mred" in out.getvalue()  # the cell is red by rich's code, not by its own
    say(HOSTILE)
    say(HOSTILE, error=True)
    assert capsys.readouterr() == (f"{ESCAPED}\n", f"{ESCAPED}\n")


def _through_printable(call: ast.Call) -> bool:
    return bool(call.args) and ast.unparse(call.args[0]).startswith("printable(")


def test_control_characters_are_escaped():
    """`print` and rich's own Console would let through what they are given."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in ("print", "Console") and not _through_printable(node):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    # A worker's output is read by motet itself, not by people.
    assert [
        place for place in found if not place.startswith(("report/terminal.py:", "rewards/text/math_worker.py:"))
    ] == []


def test_recipes_are_written_in_escapes(tmp_path):
    recipe = parse_recipe({"policy": {"path": "x"}, "run": {"steps": 1}, "description": "a\u202eb\x1b[2Jé"})
    text = to_yaml(recipe)
    assert not commands(text)
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert show({"a\nb\x1b": 1}) == r"{a\nb\x1b: 1}"
    plain = parse_recipe({"policy": {"path": "x"}, "run": {"steps": 1}, "description": "é 日本"})
    assert "é 日本" in to_yaml(plain)


def test_commands_hide_passwords_and_escape_answers(tiny_checkpoint, capsys, tmp_path, monkeypatch):
    options = {"endpoint": {"base_url": "http://me:secret@host/v1?token=hidden", "model": "m"}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=[{"name": "judged", "options": options}])
    shown = motet_command(capsys, "config", recipe)
    assert shown.code == 0 and "http://***@host/v1?token=***" in shown.out and "secret" not in shown.out
    wrong = motet_command(capsys, "config", recipe, "rewards.0.options.endpoint.base=http://me:secret@host", "run.x=1")
    assert wrong.code == 2 and "secret" not in wrong.err and "hidden" not in wrong.err
    monkeypatch.setattr(JanusPolicy, "generate_text", lambda *_, **__: [SimpleNamespace(text=HOSTILE, finished=True)])
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    answer = motet_command(capsys, "ask", tiny_checkpoint, tmp_path / "p.png", "what?")
    assert answer.code == 0 and answer.out.startswith(ESCAPED)


def test_a_count_of_one_has_a_singular_noun():
    assert [plural(count, "step") for count in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
