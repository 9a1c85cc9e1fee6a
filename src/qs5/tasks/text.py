"""`text`: IMDB reviews, positive or negative, read character by character (a task of the Long Range Arena).

Found as the folder `aclImdb` of the original release, as `imdb_train.jsonl.gz` and `imdb_test.jsonl.gz` (an object a
line: id, label 0 or 1, text), or as the original archive, which is fetched where nothing is found.

Source: A. Maas et al., "Learning Word Vectors for Sentiment Analysis", 2011; character vocabulary and cuts as
lindermanlab/S5 `dataloaders/lra.py`.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qs5.files import write_beside
from qs5.tasks import places, tokens
from qs5.tasks.download import cache_dir, fetch
from qs5.tasks.errors import DataError
from qs5.tasks.splits import hold_out
from qs5.tasks.task import OneHot, Split, Task

URL = "https://ai.stanford.edu/~amaas/data/sentiment/"
ARCHIVE, ARCHIVE_MD5 = "aclImdb_v1.tar.gz", "7c2ac02c03563afcf9b574c7e56c153a"
FOLDER = "aclImdb"
BELOW = ("", "imdb")
CLASSES = ("negative", "positive")
WIDTH = 135  # of the one-hot vector in the official code; the vocabulary of 4,095 characters a review has 134 tokens
MIN_COUNT = 15
SPLIT_SEED, VALIDATION_FRACTION = 42, 0.1
_MEMBER = re.compile(r"(?:^|/)(train|test)/(neg|pos)/(\d+)_(\d+)\.txt$")


class Review(NamedTuple):
    """label: 0 negative, 1 positive.  id: the number in the file's name."""

    label: int
    id: int
    text: str


Reviews = dict[str, list[Review]]
"""The reviews of "train" and "test"."""


def load_text(
    *,
    data_dir: str | None = None,
    length: int = 4096,
    selection: str = "validation",
    width: int = WIDTH,
    base_url: str = URL,
    download: bool = True,
) -> Task:
    """The task `text`: characters (N, length, 1) as token numbers, one-hot; two classes.

    length: steps, <eos> included; a longer review is cut.
    selection: "validation" holds a tenth of the training reviews back (22,500 / 2,500 / 25,000, the same share of
        both labels); "test" trains on all and selects on the test split, as the paper does.
    width: of the one-hot vector, at least the size of the vocabulary (characters seen at least 15 times among the
        first length - 1 of every training review).
    download: whether a missing archive (84 MB) may be fetched from `base_url`.
    Raises DataError when the reviews cannot be had or are malformed.
    """
    tokens.check_length("text", length)
    tokens.check_selection("text", selection)
    reviews = read_reviews(data_dir, base_url=base_url, download=download)
    vocabulary = vocabulary_of([r.text for r in reviews["train"]], length=length)
    if len(vocabulary.tokens) > width:
        raise DataError(
            f"text: expected at most {width} tokens, got a vocabulary of {len(vocabulary.tokens)}; "
            "give a greater width (--data width=...)"
        )
    train, test = (_split(reviews[name], vocabulary, length) for name in ("train", "test"))
    kept, held_out = hold_out(train.y, seed=SPLIT_SEED, fraction=VALIDATION_FRACTION)
    validation, rule = tokens.selected(train.take(held_out), test, selection)
    return Task(
        name="text",
        train=train if selection == "test" else train.take(kept),
        validation=validation,
        test=test,
        encoding=OneHot(width=width),
        classes=CLASSES,
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
        channels=vocabulary.tokens,
    )


def vocabulary_of(texts: list[str], *, length: int) -> tokens.Characters:
    """Characters that occur at least 15 times in what is read of the texts, the most frequent first."""
    counts = np.zeros(tokens.CODE_POINTS, np.int64)
    for text in texts:
        np.add.at(counts, tokens.code_points(text[: length - 1]), 1)
    known = sorted(np.flatnonzero(counts >= MIN_COUNT).tolist(), key=lambda point: (-counts[point], point))
    return tokens.Characters("".join(map(chr, known)))


def _split(reviews: list[Review], vocabulary: tokens.Characters, length: int) -> Split:
    x, lengths = vocabulary.encode([r.text for r in reviews], length=length)
    return Split(x=x, y=np.asarray([r.label for r in reviews], np.int32), lengths=lengths)


# ---- where the reviews come from ----


def read_reviews(data_dir: str | None, *, base_url: str = URL, download: bool = True) -> Reviews:
    """The reviews of both splits, by label and number: the same order from every source."""
    folders = places.directories(data_dir, task="text", below=BELOW)
    found = places.find([FOLDER, "imdb_train.jsonl.gz", "imdb_train.jsonl", ARCHIVE], folders)
    if found is None:
        found = _fetch(data_dir, base_url=base_url, download=download)
    if found.name == FOLDER:
        reviews = _sorted(_in_folder(found), source=found)
    elif found.name == ARCHIVE:
        reviews = _sorted(_in_archive(found), source=found)
        if found.parent == cache_dir() / "imdb":
            _keep(reviews, found.parent)
    else:
        reviews = _sorted(_in_lines(found), source=found.parent)
    return reviews


def _sorted(rows: Iterator[tuple[str, Review]], *, source: Path) -> Reviews:
    reviews: Reviews = {"train": [], "test": []}
    for split, review in rows:
        if not review.text:
            raise DataError(f"{source}: expected a text in every review, got none in {split} {review.id}")
        reviews[split].append(review)
    for split, found in reviews.items():
        labels = {review.label for review in found}
        if labels != {0, 1}:
            raise DataError(
                f"{source}: expected negative and positive reviews in {split}, got {len(found)} reviews and labels "
                f"{sorted(labels)}; the data set is not complete"
            )
        found.sort(key=lambda review: (review.label, review.id))
    return reviews


def _in_folder(folder: Path) -> Iterator[tuple[str, Review]]:
    for path in folder.glob("*/*/*.txt"):
        member = _MEMBER.search(path.as_posix())
        if member:
            yield _review(member, places.read(path, task="text"), source=str(path))


def _in_archive(archive: Path) -> Iterator[tuple[str, Review]]:
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                member, file = _MEMBER.search(entry.name), tar.extractfile(entry)
                if member and file:
                    yield _review(member, file.read(), source=f"{archive}: {entry.name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{archive}: expected a complete tar archive, got a damaged one ({error}); fetch it again"
        ) from error


def _review(member: re.Match[str], content: bytes, *, source: str) -> tuple[str, Review]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: expected UTF-8, got {error}; the file is damaged") from error
    return member[1], Review(label=int(member[2] == "pos"), id=int(member[3]), text=text)


def _in_lines(train: Path) -> Iterator[tuple[str, Review]]:
    test = train.with_name(train.name.replace("train", "test"))
    if not test.is_file():
        raise DataError(f"text: expected {test.name} beside {train}, got none; put it there")
    for split, path in (("train", train), ("test", test)):
        content = places.read(path, task="text")
        try:
            lines = (
                (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8").split("\n")
            )
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: expected a complete UTF-8 file, got a damaged one ({error})") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield split, _parse(line, source=f"{path}, line {number}")


def _parse(line: str, *, source: str) -> Review:
    try:
        table: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: expected a JSON object, got {error}; correct the line") from error
    kinds = {"id": int, "label": int, "text": str}
    good = isinstance(table, dict) and all(isinstance(table.get(k), kind) for k, kind in kinds.items())
    if not good or table["label"] not in (0, 1):
        raise DataError(
            f"{source}: expected an object with id (a number), label (0 or 1) and text, got {line[:60]!r}; correct it"
        )
    return Review(label=int(table["label"]), id=table["id"], text=table["text"])


def _fetch(data_dir: str | None, *, base_url: str, download: bool) -> Path:
    try:
        if not download:
            raise DataError("download is switched off")
        return fetch(base_url.rstrip("/") + "/" + ARCHIVE, cache_dir() / "imdb" / ARCHIVE, md5=ARCHIVE_MD5)
    except DataError as error:
        raise places.missing(
            "text",
            wanted=f"the folder {FOLDER}, {ARCHIVE}, or imdb_train.jsonl.gz and imdb_test.jsonl.gz",
            data_dir=data_dir,
            remedy=f"fetching {ARCHIVE} failed ({error}); put it in one of these places",
        ) from error


def _keep(reviews: Reviews, folder: Path) -> None:
    """Write the reviews of an archive beside it as lines: reading 50,000 of its members takes half a minute."""
    for split in ("test", "train"):  # the name of the second is what is looked for
        lines = "".join(json.dumps(review._asdict()) + "\n" for review in reviews[split])
        write_beside(
            folder / f"imdb_{split}.jsonl.gz", gzip.compress(lines.encode(), compresslevel=6, mtime=0)
        )
