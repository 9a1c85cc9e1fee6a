from tests.compiled import compile_once

__all__ = ["compile_once"]
