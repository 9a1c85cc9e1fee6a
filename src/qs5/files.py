"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_beside(path: Path, data: bytes) -> None:
    """Write to a temporary neighbour, then rename over `path`: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
