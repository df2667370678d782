"""Texts of users and models are shown as texts by every command: no control character, no markup."""

from __future__ import annotations

import io
import unicodedata
from unittest.mock import Mock

import pytest
from rich.text import Text

from motet.config.stage_files import COLUMNS
from motet.config.sweep import StrategySweep
from motet.experiments.sweep_report import sweep_tables
from motet.experiments.sweep_results import SweepResult
from motet.report.progress import ProgressBar
from motet.report.run_count import RunCount
from motet.report.tables import rewards_table
from motet.report.terminal import Terminal, say
from tests.runs import Answer, motet_command

EVIL = "\x1b[31m[red]a[/red]:smile:\u202e\x1b]8;;x\x9c\x9b<b>"
"""Colours, rich's markup and emoji, a right-to-left override, a link, HTML: legal in a file name too."""
SHOWN = "\\x1b[31m[red]a[/red]:smile:\\u202e\\x1b]8;;x\\x9c\\x9b<b>"


def assert_plain(answer: Answer) -> None:
    """Nothing that a terminal acts on: control and format characters, but for line ends and tabs."""
    for text in (answer.out, answer.err):
        bad = {repr(char) for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs")}
        assert not bad, (bad, text)


def test_tables_bars_and_headings_show_texts_as_they_are():
    file = io.StringIO()
    console = Terminal(file=file, width=200)
    row = {"rows": 1, "k": 1, "mean": 0.5, "interval": 0.1, "greedy": 0.5, "by_row": [0.5], "by_row_greedy": [0.5]}
    results = {EVIL: {COLUMNS[0]: SweepResult((0.1, 0.1), (0.1, 0.1), None, (0.1,))}}
    sweep = Mock(spec=StrategySweep, seeds=[0], baseline=EVIL)
    sweep.budget.return_value = {EVIL: 3}
    console.print(*sweep_tables(sweep, results))
    with RunCount(console, 2).run(EVIL):
        pass
    with ProgressBar(console) as bar:
        bar.items(EVIL, 1, 2)
    console.print(Text(EVIL))
    console.print(rewards_table({EVIL: {EVIL: {EVIL: row}, "other": {EVIL: row}}}, EVIL))
    assert_plain(Answer(0, file.getvalue(), ""))
    assert file.getvalue().count(SHOWN) >= 6 and "[+10.0 ± 10.0]" in file.getvalue()


def test_a_name_with_line_breaks_stays_on_its_line(capsys):
    file, name = io.StringIO(), "two\nlines\u2028\r"
    console = Terminal(file=file, width=200)
    console.say(f"Report: {name}")
    with ProgressBar(console) as bar:
        bar.items(name, 1, 2)
        bar.on_step_end(1, {f"eval/{name}": 0.5})
    say(f"{name}: 0.5", "another line")
    lines = file.getvalue().splitlines() + capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all("two\\nlines\\u2028\\r" in line for line in lines[:4])


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "a", "b.png", "c?", f"{EVIL}\n"],
        ["sample", f"--{EVIL}\n"],
        [f"--{EVIL}\n"],
        [f"{EVIL}\n"],
        ["reward", f"{EVIL}\n"],
        ["train", "a.yaml", "-o", "out", "--resume", f"--{EVIL}\n"],
    ],
    ids=["extra argument", "option", "option before the command", "command", "command of a group", "resumable"],
)
def test_wrong_arguments_are_shown_as_they_are(arguments, capsys):
    answer = motet_command(capsys, *arguments)
    assert answer.code == 2 and "\\u202e" in answer.err
    assert "\\n" in answer.err or "\\x0a" in answer.err  # newer versions of typer escape line breaks themselves
    assert_plain(answer)
