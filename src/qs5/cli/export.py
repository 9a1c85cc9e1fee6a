"""`qs5 export c|onnx MODEL -o OUT`: an integer model as source code or as a graph."""

import argparse
import importlib
from pathlib import Path

from qs5 import integer

TARGETS = {
    "c": ("qs5.backends.c99", "a folder with C99 sources, a Makefile, a main program and a self-test"),
    "onnx": ("qs5.backends.onnx", "an .onnx file of integer operators"),
}


def run(argv: list[str]) -> int:
    """Parse, load, write."""
    args = _parser().parse_args(argv)
    model = integer.load(args.model)
    module, what = TARGETS[args.target]
    importlib.import_module(module).export(model, args.out)
    print(f"{args.out}: {what}")
    return 0


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:<5} {what}" for name, (_, what) in TARGETS.items()]
    parser = argparse.ArgumentParser(
        prog="qs5 export",
        description="write an integer model in another form\n\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=tuple(TARGETS), help="see above")
    parser.add_argument("model", help="a .qs5 file, a folder that holds model.qs5, or a zoo model")
    parser.add_argument("-o", "--out", type=Path, required=True, help="where to write")
    return parser
