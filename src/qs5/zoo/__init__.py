"""Small trained models that come with the package. A zoo entry is a run's folder with a card, CARD.md."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Names that every verb accepts in place of a run's folder."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/run.json")))


def find(name: str) -> Path | None:
    """The folder of a zoo entry, or None."""
    return FOLDER / name if name in names() else None
