"""Integer models: load one, run it, stream through it. NumPy only.

model = qs5.integer.load("smnist-w8a8abar16")
session = model.stream()
session.step(u); session.run(chunk); session.logits; session.state; session.reset()
"""

from importlib import resources
from pathlib import Path

from qs5.integer.engine import (
    Engine as Engine,
    available as available,
    chosen as chosen,
    engine as engine,
)
from qs5.integer.errors import IntegerModelError as IntegerModelError
from qs5.integer.file import content_hash as content_hash, load as _load_file, save as save
from qs5.integer.model import IntegerModel as IntegerModel
from qs5.integer.session import Session as Session

MODEL_FILE = "model.qs5"


def load(source: str | Path) -> IntegerModel:
    """The model of a `.qs5` file, of a folder that holds `model.qs5`, or of the zoo by name.

    Raises IntegerModelError when there is none, or when it is damaged.
    """
    path = Path(source)
    if path.is_dir():
        path = path / MODEL_FILE
    elif not path.exists() and path.parent == Path():
        shipped = resources.files("qs5.zoo").joinpath(str(source), MODEL_FILE)
        if shipped.is_file():
            path = Path(str(shipped))
    return _load_file(path)
