"""Text of a model, which anybody may have written, as C identifiers, strings, comments and numbers."""

import re

_RESERVED = """auto break case char const continue default do double else enum extern float for goto if inline int long
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    asm bool catch class delete explicit export false friend mutable namespace new operator private protected public
    template this throw true try typename using virtual and bitand bitor compl not or xor
    main state raw row work length outputs logits scratch k i c steps sum last bytes"""
KEYWORDS = frozenset(_RESERVED.split())
"""What no signal may be called in C: keywords (of C++ too), and names that the emitted functions use."""


class Names:
    """Identifiers for names: letters, digits and underscores; different ones for different names.

    prefix: of the emitted functions, which no signal may begin with.
    """

    def __init__(self, prefix: str = "qs5") -> None:
        self._taken: set[str] = set(KEYWORDS)
        self._given: dict[tuple[str, str], str] = {}
        self._ours = ("qs5", prefix.lower())

    def __call__(self, name: str, field: str = "") -> str:
        """The identifier of a signal, or of a field of the op that writes it."""
        if (name, field) not in self._given:
            self._given[name, field] = self._fresh(f"{name}_{field}" if field else name)
        return self._given[name, field]

    def _fresh(self, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60]
        reserved = (
            plain.lower().startswith(self._ours) or plain.endswith("_t") or plain.startswith(("INT", "UINT"))
        )
        plain = f"s_{plain}" if reserved or not plain[:1].isalpha() else plain
        plain = f"{plain}_s" if plain.endswith("_t") else plain
        candidate, n = plain, 1
        while candidate in self._taken:
            n += 1
            candidate = f"{plain}_{n}"
        self._taken.add(candidate)
        return candidate


def string(text: str) -> str:
    """A string literal; all but printable ASCII as octal escapes of its UTF-8 bytes."""
    return '"' + "".join(map(_character, text.encode("utf-8", "replace"))) + '"'


def _character(byte: int) -> str:
    c = chr(byte)
    if c in '"\\?':  # a question mark could begin a trigraph
        return "\\" + c
    return c if 32 <= byte < 127 else f"\\{byte:03o}"


def comment(text: str) -> str:
    """Text that can stand in a comment: one line, unable to end it or to begin another."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line.replace("*/", "* /").replace("/*", "/ *").replace("??/", "? ?/").rstrip("\\")


def int64(value: int) -> str:
    """A constant of type int64_t."""
    return f"INT64_C({value})"
