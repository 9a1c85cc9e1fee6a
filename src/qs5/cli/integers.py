"""What the verbs for integer models share. No JAX, no rich: the first prediction should come at once."""

import sys

from qs5 import integer
from qs5.integer.engine import Engine
from qs5.integer.model import IntegerModel


def is_integer_model(name: str) -> bool:
    """Whether a name means an integer model: a .qs5 file, or a zoo entry that holds one and no run."""
    from qs5 import zoo

    return name.endswith(".qs5") or name in zoo.integer_names()


def open_engine(name: str, backend: str) -> tuple[IntegerModel, Engine, str]:
    """Model, engine, and the name of the backend that runs it. Raises UserError."""
    model = integer.load(name)
    chosen = integer.chosen(backend)  # type: ignore[arg-type]
    if (backend, chosen) == ("auto", "reference"):
        print("qs5: the native engine is not here, or off; using the (slow) reference", file=sys.stderr)
    return model, integer.engine(model, chosen), chosen
