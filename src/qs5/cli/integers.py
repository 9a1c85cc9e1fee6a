"""What the verbs for integer models share. No JAX, no rich: the first prediction should come at once."""

import sys
from pathlib import Path

from qs5 import integer
from qs5.errors import UserError
from qs5.integer.engine import Engine
from qs5.integer.model import IntegerModel


def is_integer_model(name: str) -> bool:
    """Whether a name means an integer model: a .qs5 file, or a zoo entry that holds one and no run."""
    from qs5 import zoo

    return name.endswith(".qs5") or name in zoo.integer_names()


def refuse_integer_model(name: str) -> None:
    """Raise UserError if a name means an integer model: of the verbs for runs, which say so in place of "nothing"."""
    from qs5 import zoo

    path = Path(name)
    within = path / integer.MODEL_FILE
    is_file = path.is_file() and name.endswith(".qs5")
    if not (name in zoo.integer_names() or is_file or within.is_file()):
        return
    model = within if within.is_file() else name
    raise UserError(
        f"{name}: expected a run (a folder with run.json) or a zoo model that is one, got an integer model, which has "
        f"no sites left to calibrate or to train; qs5 evaluate {model} judges it, qs5 bench mcu {model} says what it "
        "costs, and everything else is asked of the run that it was lowered from"
    )


def open_engine(name: str, backend: str) -> tuple[IntegerModel, Engine, str]:
    """Model, engine, and the name of the backend that runs it. Raises UserError."""
    model = integer.load(name)
    chosen = integer.chosen(backend)  # type: ignore[arg-type]
    if (backend, chosen) == ("auto", "reference"):
        print("qs5: the native engine is not here, or off; using the (slow) reference", file=sys.stderr)
    return model, integer.engine(model, chosen), chosen
