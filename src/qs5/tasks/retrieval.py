"""`retrieval`: does one paper cite the other, or are they related? Two texts, read character by character.

Found as `new_aan_pairs.train.tsv`, `.eval.tsv` and `.test.tsv` of the Long Range Arena's release (folder `tsv_data`):
label, two numbers of papers and their texts, between tabs, without a header. The texts are Python byte literals
(b'...'), so that every character is printable ASCII: with the special tokens a vocabulary of 98.

Source: D. Radev et al., "The ACL Anthology Network corpus", 2013; Y. Tay et al., "Long Range Arena", 2021; tokens as
lindermanlab/S5 `dataloaders/lra.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qs5.tasks import places, tokens
from qs5.tasks.errors import DataError
from qs5.tasks.task import OneHot, Split, Task

LRA = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
FILES = {
    "train": "new_aan_pairs.train.tsv",
    "validation": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
BELOW = ("", "tsv_data", "aan", "lra_release/tsv_data", "lra_release/lra_release/tsv_data")
CLASSES = ("unrelated", "related")
VOCABULARY = tokens.Characters("".join(map(chr, range(32, 127))))
_LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


def load_retrieval(*, data_dir: str | None = None, length: int = 4000, selection: str = "validation") -> Task:
    """The task `retrieval`: pairs (N, 2, length, 1) of token numbers, one-hot; two classes. The model needs the head
    "retrieval". The release's pairs take 1.5 GB.

    length: steps of each text, <eos> included; a longer text is cut.
    selection: "validation", or "test" as the paper selects.
    Raises DataError when the files are not there or are malformed.
    """
    tokens.check_length("retrieval", length)
    tokens.check_selection("retrieval", selection)
    folder = _folder(data_dir)
    splits = {name: _read(folder / file, length) for name, file in FILES.items()}
    validation, rule = tokens.selected(splits["validation"], splits["test"], selection)
    return Task(
        name="retrieval",
        train=splits["train"],
        validation=validation,
        test=splits["test"],
        encoding=OneHot(width=len(VOCABULARY.tokens)),
        classes=CLASSES,
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
        channels=VOCABULARY.tokens,
    )


def _folder(data_dir: str | None) -> Path:
    folders = places.directories(data_dir, task="retrieval", below=BELOW)
    found = places.find([FILES["train"]], folders)
    if found is None:
        raise places.missing(
            "retrieval",
            wanted=", ".join(FILES.values()),
            data_dir=data_dir,
            remedy=f"take tsv_data/ out of {LRA}",
        )
    return found.parent


def _read(path: Path, length: int) -> Split:
    """The pairs of a file. Its lines are read one by one, and cut at once: the files hold several gigabytes."""
    labels: list[int] = []
    texts: tuple[list[str], list[str]] = ([], [])
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                label, first, second = _fields(line.rstrip("\r\n"), f"{path}, line {number}")
                labels.append(label)
                texts[0].append(first[: length - 1])
                texts[1].append(second[: length - 1])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, got {error}; the file is damaged") from error
    except OSError as error:
        raise DataError(f"retrieval: expected a readable file, got {error}; put it there") from error
    if not labels:
        raise DataError(f"{path}: expected pairs of texts, got an empty file; fetch it again")
    x, lengths = zip(*(VOCABULARY.encode(side, length=length) for side in texts), strict=True)
    return Split(x=np.stack(x, axis=1), y=np.asarray(labels, np.int32), lengths=np.stack(lengths, axis=1))


def _fields(line: str, source: str) -> tuple[int, str, str]:
    """Label and texts of a line."""
    fields = line.split("\t")
    if len(fields) != 5 or fields[0] not in _LABELS or not fields[3] or not fields[4]:
        raise DataError(
            f"{source}: expected label 0 or 1, two numbers and two texts between tabs, got {len(fields)} fields, "
            f"{line[:40]!r}; it is not a file of the Long Range Arena"
        )
    return _LABELS[fields[0]], fields[3], fields[4]
