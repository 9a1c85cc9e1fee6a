"""Tables: text in, text out."""

import io

from rich.console import Console

from qs5.reports.tables import markdown, percent, terminal

ROWS = [("a", "1.00"), ("bb", "-")]


def test_markdown() -> None:
    assert markdown(("x", "y"), ROWS) == "| x | y |\n| --- | --- |\n| a | 1.00 |\n| bb | - |\n"


def test_terminal_shows_every_cell_and_keeps_names_whole() -> None:
    console = Console(width=40, record=True, file=io.StringIO())
    name = "layers.0.ssm.state_out"
    console.print(terminal("title", ("site", "what"), [(name, "a long explanation " * 4)]))
    assert name in console.export_text()


def test_percent() -> None:
    assert [percent(v) for v in (0.99456, 1.0, None)] == ["99.46", "100.00", "-"]
