"""The optional packages: `onnx` to write a graph, `onnxruntime` to run one."""

import importlib
from typing import Any

from qs5.errors import UserError


def require(name: str) -> Any:
    """The package `name`. Raises UserError when it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"expected the package {name}, got {str(error) or 'an import error'}; pip install 'qs5[onnx]'"
        ) from error
