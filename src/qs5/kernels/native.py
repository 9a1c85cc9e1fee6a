"""The extension module: whether it is there, and its handlers made known to JAX.

QS5_NATIVE=0 turns it off. QS5_NATIVE_ISA=baseline or avx2 holds it back from wider instructions (for tests).
"""

import functools
import os
import sys

import jax

VARIABLE = "QS5_NATIVE"


@functools.cache
def _loaded() -> bool:
    """Import and register, once a process. A missing extension is said on stderr, once."""
    try:
        from qs5 import _native  # pyright: ignore[reportAttributeAccessIssue]

        for name, capsule in _native.handlers().items():
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except Exception as error:  # a binary that does not fit, or an older JAX: pure JAX still works
        print(
            f"qs5: training without the native kernels, which is slower ({error}). Install a C++ compiler and "
            f"qs5 again, or set {VARIABLE}=0 to silence this.",
            file=sys.stderr,
        )
        return False
    return True


def available() -> bool:
    """Whether kernels can be called: JAX runs on the CPU, the extension is there and not turned off."""
    return os.environ.get(VARIABLE) != "0" and jax.default_backend() == "cpu" and _loaded()


def instruction_set() -> str | None:
    """What the kernels were compiled for: `baseline`, `avx2`, `avx512`; None without them."""
    if not available():
        return None
    from qs5 import _native  # pyright: ignore[reportAttributeAccessIssue]

    return _native.instruction_set()
