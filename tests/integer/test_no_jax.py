"""An integer model runs on NumPy: nothing of what made it is needed, or imported."""

from pathlib import Path

import numpy as np
from tests.integer.small import classifier

from qs5.backends import reference
from qs5.integer import save

ABSENT = ("jax", "jaxlib", "equinox", "optax", "orbax", "sklearn", "scipy", "tyro", "rich")

USE = """
import sys, time
started = time.perf_counter()
import qs5.integer
imported = time.perf_counter()
model = qs5.integer.load({path!r})
loaded = time.perf_counter()
session = model.stream("reference")
session.step([100, -200])
session.run([[k, -k] for k in range(0, 30000, 1000)])
print(*session.logits.tolist())
print(f"import {{imported - started:.3f}} s, load {{loaded - imported:.4f}} s", file=sys.stderr)
print(f"{{loaded - imported:.4f}}")
print(*sorted(name for name, module in sys.modules.items() if module is not None))
"""


def test_load_and_stream_without_jax(run_python, tmp_path: Path) -> None:
    model = classifier()
    save(tmp_path / "model.qs5", model)
    answer, seconds, modules = run_python(
        USE.format(path=str(tmp_path / "model.qs5")), without=ABSENT
    ).splitlines()
    raw = np.array([[100, -200], *([k, -k] for k in range(0, 30000, 1000))])
    assert [int(v) for v in answer.split()] == reference.logits(model, raw[None])[0].tolist()
    assert not set(ABSENT) & {name.split(".")[0] for name in modules.split()}
    print(f"loading a small model takes {float(seconds) * 1e3:.1f} ms")
    assert float(seconds) < 1.0


def test_importing_the_package_imports_nothing_of_training(run_python) -> None:
    code = "import sys, qs5.integer\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    modules = set(run_python(code).split())
    assert "numpy" in modules
    assert not modules & set(ABSENT)
    inside = run_python(
        "import sys, qs5.integer\nprint(*sorted(n for n in sys.modules if n.startswith('qs5')))"
    )
    below = {name.split(".")[1] for name in inside.split() if "." in name}
    assert below <= {"integer", "errors", "files", "numerics", "notation"}
