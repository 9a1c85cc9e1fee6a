"""The options of a loader against the types that its signature declares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

KINDS: dict[Any, tuple[Any, str]] = {
    str: ((str, os.PathLike), "text"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    NoneType: (NoneType, "none"),
}


def type_problems(loader: Callable[..., object], options: Mapping[str, object]) -> list[str]:
    """One sentence for each option that is not of the type that the loader declares, or none of its choices."""
    hints = get_type_hints(loader)
    return [
        f"expected {name} to be {_words(hints[name])}, got {value!r}{_hint(name, value, hints[name])}"
        for name, value in options.items()
        if not _fits(value, hints[name])
    ]


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is Sequence:
        return isinstance(value, Sequence) and all(_fits(each, get_args(hint)[0]) for each in value)
    if isinstance(value, bool) or hint is bool:  # True is no 1 here
        return isinstance(value, bool) and hint is bool
    return isinstance(value, KINDS[hint][0])


def _words(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_words(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is Sequence:
        return f"several of: {_words(get_args(hint)[0])}"
    return "true or false" if hint is bool else KINDS[hint][1]


def _hint(name: str, value: object, hint: Any) -> str:
    """How to write what a command line takes for a number."""
    is_number = isinstance(value, bool | int | float) and _fits("", hint)
    return f" (as text: {name}='\"{value}\"')" if is_number else ""
