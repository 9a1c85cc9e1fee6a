"""Small trained models that come with the package, each a folder with a card, CARD.md: a run, or an integer model."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Names that every verb for runs accepts in place of a run's folder."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/run.json")))


def integer_names() -> tuple[str, ...]:
    """Names of the integer models, for the verbs that take one."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/model.qs5")))


def find(name: str) -> Path | None:
    """The folder of a zoo entry, or None."""
    return FOLDER / name if name in names() else None
