"""Who may import whom. Data flows one way, and what comes out at the end runs on NumPy alone.

The imports are read from the source, so those inside functions and under TYPE_CHECKING count as well.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import qs5

SOURCE = Path(__file__).parents[1] / "src" / "qs5"
JAX = frozenset({"jax", "jaxlib", "equinox", "optax", "orbax", "flax", "chex", "aqt"})
NUMPY = frozenset({"numpy"})
BACKENDS = frozenset({"reference", "native", "c99", "onnx", "mcu"})  # none may import another


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the modules of one package may import besides each other and the standard library."""

    ours: frozenset[str] = frozenset()  # dotted names below qs5
    jax: bool | frozenset[str] = False  # everywhere, nowhere, or in these modules only
    others: bool | frozenset[str] = True  # third parties except JAX: any, none, or these only


def row(ours: str, *, jax: bool | frozenset[str] = False, others: bool | frozenset[str] = True) -> Row:
    """The row of a package that may import `ours`, names in a string, besides the modules below the rest."""
    return Row(
        ours=frozenset(["notation", "errors", "files", "machine", *ours.split()]), jax=jax, others=others
    )


LIBRARY = "numerics tasks kernels model quantization training lowering integer backends"
TABLE: dict[str, Row] = {
    # These import nothing of ours.
    "notation": Row(others=False),
    "errors": Row(others=False),
    "machine": Row(others=False),
    "numerics": Row(others=NUMPY),
    "_native": Row(others=False),  # the extension module
    # These import a little.
    "files": Row(ours=frozenset({"errors"}), others=False),
    "kernels": Row(ours=frozenset({"_native"}), jax=True),
    "zoo": Row(others=False),
    "tasks": row("", jax=frozenset({"tasks.losses", "tasks.metrics"})),
    "model": row("kernels", jax=True),
    "quantization": row("numerics model kernels", jax=True),
    "training": row("tasks model quantization", jax=True),
    "integer": row("numerics", others=NUMPY | {"safetensors"}),
    "lowering": row("model quantization integer numerics", jax=True),
    "backends": row("integer numerics _native"),
    "search": row(LIBRARY, jax=True),
    "sweeps": row(LIBRARY, jax=True),
    "reports": row("integer.cost"),
    "interop": row("model", jax=True),
    "cli": row(LIBRARY + " search sweeps reports interop zoo", jax=True),
}


def imports_of(source: str, module: str, *, is_package: bool) -> list[tuple[int, str]]:
    """Line and absolute dotted name of every import; `from a import b` gives `a.b`, as b may be a module."""
    found: list[tuple[int, str]] = []
    parents = ["qs5", *module.split(".")] if module else ["qs5"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package  # one dot is the package itself, which for an __init__ is no step up
            base = parents[: len(parents) - up] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            literal = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            found += [(node.lineno, name) for name in literal]
    return found


def is_allowed(name: str, module: str) -> bool:
    """Whether `module`, a dotted name below qs5, may import the absolute `name`."""
    package, _, below = module.partition(".")
    rules = TABLE[package]
    top, _, ours = name.partition(".")
    if top == "qs5":
        if package == "backends" and ours.startswith("backends."):
            mine, theirs = below.split(".")[0], ours.split(".")[1]
            return mine not in BACKENDS or theirs not in BACKENDS - {mine}
        return any(f"{ours}.".startswith(f"{prefix}.") for prefix in {package, *rules.ours})
    if top in JAX:
        return rules.jax if isinstance(rules.jax, bool) else module in rules.jax
    if top in sys.stdlib_module_names:
        return True
    return rules.others if isinstance(rules.others, bool) else top in rules.others


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One sentence for every import in `source` that the table does not allow `module` to have."""
    return [
        f"qs5.{module}, line {line}: imports {name}, which the table in test_imports.py does not allow"
        for line, name in imports_of(source, module, is_package=is_package)
        if not is_allowed(name, module)
    ]


def modules_of(package: str) -> list[tuple[Path, str]]:
    """Files of one package of qs5 (or of one top-level module) with their dotted names below qs5."""
    files = sorted((SOURCE / package).rglob("*.py")) + [p for p in [SOURCE / f"{package}.py"] if p.exists()]
    return [
        (p, ".".join(p.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")) for p in files
    ]


@pytest.mark.parametrize("package", TABLE)
def test_package_imports_only_what_its_row_allows(package: str) -> None:
    found = [
        line
        for path, module in modules_of(package)
        for line in violations(path.read_text(), module, is_package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_every_package_has_a_row() -> None:
    present = {p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or any(p.glob("**/*.py"))}
    assert present - {"__init__", "__main__"} <= TABLE.keys()


def test_no_row_allows_a_cycle() -> None:
    for package, rules in TABLE.items():
        reachable, front = set[str](), set(rules.ours)
        while front:
            reachable |= front
            front = {n for name in front for n in TABLE[name.split(".")[0]].ours} - reachable
        assert package not in reachable


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("numerics.rounding", "import jax.numpy as jnp", "jax.numpy"),
        ("numerics.rounding", "from qs5 import notation", "qs5.notation"),
        ("numerics.rounding", "import scipy", "scipy"),
        ("integer.ops", "from equinox import Module", "equinox.Module"),
        ("errors", "import numpy", "numpy"),
        ("integer.ops", "from qs5 import model", "qs5.model"),
        ("integer.ops", "def f():\n    from ..model import S5Model", "qs5.model.S5Model"),
        ("tasks.smnist", "import jax", "jax"),
        ("tasks.losses", "from qs5.model.network import S5Model", "qs5.model.network.S5Model"),
        ("model.ssm", "from qs5.quantization import QuantSpec", "qs5.quantization.QuantSpec"),
        ("model.ssm", "if TYPE_CHECKING:\n    import qs5.numerics", "qs5.numerics"),
        ("model.ssm", "import importlib\nimportlib.import_module('qs5.training')", "qs5.training"),
        ("model.ssm", "from qs5 import S5Model", "qs5.S5Model"),
        ("training.loop", "from qs5.lowering import lower", "qs5.lowering.lower"),
        ("lowering.fold", "import qs5.backends.c99", "qs5.backends.c99"),
        ("backends.native", "from . import c99", "qs5.backends.c99"),
        ("backends.c99.emit", "from ..reference import run", "qs5.backends.reference.run"),
        ("backends.mcu.build", "from qs5.backends.c99 import emit", "qs5.backends.c99.emit"),
        ("reports.table", "from qs5.integer.model import IntegerModel", "qs5.integer.model.IntegerModel"),
        ("interop.lindermanlab", "from qs5.training import train", "qs5.training.train"),
        ("search.sensitivity", "from qs5.cli import main", "qs5.cli.main"),
        ("sweeps.grid", "from qs5.search import choose", "qs5.search.choose"),
        ("zoo", "import numpy", "numpy"),
    ],
)
def test_a_violation_is_found(module: str, source: str, imported: str) -> None:
    (found,) = violations(source, module)
    assert f"imports {imported}," in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "numerics.rounding",
            "import numpy as np\nfrom qs5.numerics.formats import QFormat\nimport dataclasses",
        ),
        ("tasks.losses", "import jax.numpy as jnp\nfrom qs5 import notation"),
        ("tasks.errors", "from qs5.errors import UserError"),
        ("model.ssm", "import equinox as eqx\nfrom . import hippo\nfrom ..kernels import scan"),
        ("lowering.fold", "from qs5.model import S5Model\nfrom qs5.integer import IntegerModel"),
        ("backends.c99.emit", "from qs5.integer import IntegerModel\nfrom .names import mangle"),
        ("backends", "import importlib\nimportlib.import_module('qs5.backends.c99')"),
        ("reports.table", "from qs5.integer.cost import cost"),
        ("cli.train", "from qs5.training import train\nimport jax"),
    ],
)
def test_an_allowed_import_is_not_found(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_relative_imports_of_an_init_file_stay_in_its_package() -> None:
    assert imports_of("from .a import b\nfrom . import c", "model", is_package=True) == [
        (1, "qs5.model.a.b"),
        (2, "qs5.model.c"),
    ]
    assert imports_of("from .a import b", "model.ssm", is_package=False) == [(1, "qs5.model.a.b")]


def test_importing_qs5_does_not_import_jax(run_python) -> None:
    code = (
        "import sys, time; t = time.process_time(); import qs5; print(time.process_time() - t, *sys.modules)"
    )
    seconds, *modules = run_python(code).split()
    assert not JAX & set(modules)
    assert float(seconds) < 1.0  # seconds of CPU; JAX alone would take longer


def test_qs5_can_be_imported_without_jax(run_python) -> None:
    run_python("import qs5", without=("jax", "jaxlib"))


def test_every_public_name_is_there() -> None:
    assert [name for name in getattr(qs5, "__all__", []) if not hasattr(qs5, name)] == []
