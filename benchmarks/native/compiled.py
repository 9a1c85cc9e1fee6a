"""C files beside this one, compiled for this machine and loaded with ctypes."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC")


def compiled(name: str) -> ctypes.CDLL:
    """The library of `name`.c."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{name}.so"
        source = Path(__file__).with_name(f"{name}.c")
        subprocess.run(["cc", *FLAGS, "-o", str(target), str(source)], check=True)
        return ctypes.CDLL(str(target))
