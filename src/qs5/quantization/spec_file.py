"""The file of a spec, TOML. `read_spec` takes what `spec_text` writes; every verb that takes a spec takes such a file.

    format = "qs5-spec/1"        # always
    name = "small-40k"           # for tables; default: the file's name
    a = 4                        # fields of `QuantSpec`: widths are 1 to 16 or "float"
    form = "polar"

    [sites]                      # rules of single sites by name or pattern (`qs5 inspect` lists them); later ones win
    "layers.0.ssm.y.C" = 3
    "layers.*.gate.weight" = 2

What is not named is as in W8A8Abar16.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.quantization.spec import QuantSpec, changed, fields_of, is_rule, show_bits

FORMAT = "qs5-spec/1"
MAX_BYTES = 2**20


def read_spec(path: Path) -> QuantSpec:
    """The spec of a file. Raises UserError, one line, when there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path}: expected a spec as TOML, got {error.strerror}; `qs5 search` writes one"
        ) from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: expected at most {MAX_BYTES} bytes, got more; it is no spec")
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: expected a spec as TOML, got other text ({error}); mend it") from error
    return _spec(table, path)


def _spec(table: dict[str, Any], path: Path) -> QuantSpec:
    if table.pop("format", None) != FORMAT:
        raise UserError(
            f'{path}: expected format = "{FORMAT}"; it is no spec, or one of another version of qs5'
        )
    name, sites = table.pop("name", path.stem), table.pop("sites", {})
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 200:
        raise UserError(f"{path}: expected a name of 1 to 200 characters, got {name!r}")
    if not isinstance(sites, dict):
        raise UserError(f"{path}: expected a table [sites], got sites = {sites!r}")
    if wrong := [key for key in sites if not is_rule(key)]:
        raise UserError(f"{path}: expected names or patterns of sites below [sites], got {wrong[0]!r}")
    if wrong := [key for key in table if is_rule(key)]:
        raise UserError(f"{path}: expected {wrong[0]} below [sites]")
    pairs = [(key, _text(key, value, path)) for key, value in {**table, **sites}.items()]
    return changed(QuantSpec(name=name), pairs, source=str(path))


def _text(key: str, value: Any, path: Path) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, str)):
        return str(value)
    raise UserError(f"{path}: expected a whole number or a word for {key}, got {value!r}")


def spec_text(spec: QuantSpec, *, comment: str = "") -> str:
    """The file of a spec; `comment`, lines of text, comes first."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f'format = "{FORMAT}"', f"name = {json.dumps(spec.name)}"]
    lines += [f"{key} = {_toml(value)}" for key, value in fields_of(spec).items()]
    if spec.overrides:
        lines += ["", "[sites]"]
        lines += [f'"{pattern}" = {_toml(show_bits(bits))}' for pattern, bits in spec.overrides]
    return "\n".join(lines) + "\n"


def _toml(value: str) -> str:
    return value if value.isdigit() or value in ("true", "false") else f'"{value}"'
