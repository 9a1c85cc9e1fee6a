"""Tables of results, for the terminal and for Markdown files."""

from collections.abc import Sequence

from rich.table import Table


def terminal(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for rich; numbers to the right, the first column to the left."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(value: float | None) -> str:
    """0.9946 as 99.46; a missing value as a dash."""
    return "-" if value is None else f"{100.0 * value:.2f}"
