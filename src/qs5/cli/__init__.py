"""The command line: `qs5 VERB ...`. One module a verb, imported only when it is called."""

import importlib
import os
import sys

from qs5.errors import UserError

VERBS = {
    "train": "train an S5 on a task, or continue an interrupted run",
    "quantize": "quantize a trained run: ptq, qaft, or qat from scratch",
    "sweep": "train and quantize over a grid of settings, several runs at once, resumable",
    "search": "choose the bits of every site within a budget of bytes, operations or accuracy",
    "lower": "turn a quantized run into an integer-only model, one file",
    "evaluate": "judge a run, an integer model or a zoo model on a split",
    "run": "predict with an integer model on a file or standard input",
    "export": "write an integer model as C or as ONNX",
    "bench": "what an integer model costs on emulated microcontrollers",
    "inspect": "show every site of a run: shape, bits, scale, range, saturation",
    "data": "check the files of a task, or make data sets",
    "list": "tasks, recipes, quantization presets, zoo models",
    "report": "one self-contained HTML page about runs",
    "reproduce": "a table or figure of the paper, from recorded runs",
    "demo": "train, quantize and compare, in about five minutes",
}

GOES_ON = {
    "train": "from the last finished epoch",
    "quantize": "from the last finished epoch",
    "sweep": "with what is not finished",
    "search": "with what is not measured",
}
"""Verbs that can be interrupted without a loss, and where they go on."""
TROUBLES: dict[type[OSError], str] = {
    FileNotFoundError: "expected a file or program of this name, got none; correct the name, or install it",
    IsADirectoryError: "expected a file, got a folder; name a file",
    NotADirectoryError: "expected folders above it, got a file among them; take another path",
    FileExistsError: "expected a folder, got a file of this name; take another path, or remove the file",
    PermissionError: "no permission to read or write here; take another path, or change who may",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or 2 for input that the user can mend."""
    args = [*(sys.argv[1:] if argv is None else argv)]  # not list(): that is a verb here, once imported
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if args[0] not in VERBS:
        return _refuse(f"unknown verb {args[0]!r}: expected one of {', '.join(VERBS)}")
    from qs5.cli.malloc import tune_malloc

    tune_malloc()
    try:
        return importlib.import_module(f"qs5.cli.{args[0]}").run(args[1:]) or 0
    except UserError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(_trouble(error))
    except KeyboardInterrupt:
        goes_on = f"; the same command goes on {GOES_ON[args[0]]}" if args[0] in GOES_ON else ""
        print(f"qs5: interrupted{goes_on}", file=sys.stderr)
        return 130


def _trouble(error: OSError) -> str:
    """What the system refused, in one line: the file's name, what happened, what to do."""
    known = (text for kind, text in TROUBLES.items() if isinstance(error, kind))
    other = f"{error.strerror or error}; mend this, or take another path"
    return f"{error.filename or 'a file'}: {next(known, other)}"


def _refuse(message: str) -> int:
    print(f"qs5: {message}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = [f"  {verb:<10} {what}" for verb, what in VERBS.items()]
    return "usage: qs5 VERB [options]; qs5 VERB --help says more\n\n" + "\n".join(lines)
