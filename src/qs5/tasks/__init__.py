"""Data sets as `Task`s: splits, encoding, metric and selection rule. Imports no JAX (only `losses` does)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from qs5.tasks.custom import load_custom
from qs5.tasks.digits import load_digits
from qs5.tasks.errors import DataError
from qs5.tasks.fsdd import load_fsdd
from qs5.tasks.listops import load_listops
from qs5.tasks.mackey_glass import load_mackey_glass
from qs5.tasks.options import type_problems
from qs5.tasks.pathfinder import load_pathfinder, load_pathx
from qs5.tasks.retrieval import load_retrieval
from qs5.tasks.scifar import load_scifar
from qs5.tasks.smnist import load_smnist
from qs5.tasks.task import Encoding, OneHot, Split, Task
from qs5.tasks.text import load_text

__all__ = ["DataError", "Encoding", "OneHot", "Split", "Task", "load", "loader", "names"]

_LOADERS: dict[str, Callable[..., Task]] = {
    "digits": load_digits,
    "smnist": load_smnist,
    "listops": load_listops,
    "text": load_text,
    "retrieval": load_retrieval,
    "scifar": load_scifar,
    "pathfinder": load_pathfinder,
    "pathx": load_pathx,
    "mackey_glass": load_mackey_glass,
    "fsdd": load_fsdd,
    "custom": load_custom,
}


def names() -> tuple[str, ...]:
    """The registered names that `load` accepts."""
    return tuple(_LOADERS)


def loader(name: str) -> Callable[..., Task]:
    """The loader of a registered task; its keywords are the options of `load`. Raises DataError."""
    if name not in _LOADERS:
        raise DataError(f"expected a task among {', '.join(names())}, got {name!r}; choose one of them")
    return _LOADERS[name]


def load(name: str, *, data_dir: str | None = None, **options: object) -> Task:
    """Load a task by name.

    name: one of `names()`.
    data_dir: where to look first for files on disk; tasks that need none ignore it.
    options: passed to the task's own loader (`load_smnist`, ...), which documents them.
    Raises DataError for an unknown name or option, a value of another type, and whatever is wrong with the data.
    """
    load_it = loader(name)
    accepted = inspect.signature(load_it).parameters
    _check_options(name, options, accepted)
    if problems := type_problems(load_it, options):
        raise DataError(f"{name}: {'; '.join(problems)}; correct the option")
    if "data_dir" in accepted:
        options["data_dir"] = data_dir
    return load_it(**options)


def _check_options(name: str, options: dict[str, object], accepted: Mapping[str, inspect.Parameter]) -> None:
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        known = sorted(set(accepted) - {"data_dir"})
        raise DataError(
            f"{name}: expected options among {', '.join(known) or 'none'}, got {', '.join(unknown)}; "
            "remove or correct them"
        )
    required = {option for option, parameter in accepted.items() if parameter.default is parameter.empty}
    missing = sorted(required - set(options))
    if missing:
        raise DataError(f"{name}: expected the option {', '.join(missing)}, got none; give it")
