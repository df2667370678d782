"""Texts of users and models are shown as texts by every command: no control character, no markup."""

from __future__ import annotations

import io
import unicodedata
from unittest.mock import Mock

from rich.text import Text

from motet.config.stage_files import COLUMNS
from motet.config.sweep import StrategySweep
from motet.experiments.sweep import SweepResult, sweep_table
from motet.report.progress import ProgressBar
from motet.report.run_count import RunCount
from motet.report.tables import rewards_table
from motet.report.terminal import Terminal
from tests.runs import Answer

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
    results = {EVIL: {COLUMNS[0]: SweepResult((0.1, 0.1), (0.1, 0.1), (0.1,))}}
    sweep = Mock(spec=StrategySweep, seeds=[0], baseline=EVIL)
    sweep.budget.return_value = {EVIL: 3}
    console.print(sweep_table(sweep, results))
    with RunCount(console, 2).run(EVIL):
        pass
    with ProgressBar(console) as bar:
        bar.items(EVIL, 1, 2)
    console.print(Text(EVIL))
    console.print(rewards_table({EVIL: {EVIL: {EVIL: row}}}, EVIL))
    assert_plain(Answer(0, file.getvalue(), ""))
    assert file.getvalue().count(SHOWN) >= 6 and "[+10.0 ± 10.0]" in file.getvalue()
