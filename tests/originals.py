"""Tiny data sets in the original formats, written byte by byte as their authors describe them, without our code."""

import gzip
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

# Twenty reviews of each label in train (a tenth is held out), one in test.
REVIEWS = {
    ("train", label, number): f"{label} review {number}, good é<br />"
    for label in ("neg", "pos")
    for number in range(20)
} | {("test", "neg", 7): "bad z", ("test", "pos", 3): "x" * 60}


def imdb_folder(base: Path) -> None:
    """`aclImdb` of the release: a file a review, id_rating.txt; and files that are not to be read."""
    for (split, label, number), review in REVIEWS.items():
        path = base / "aclImdb" / split / label / f"{number}_8.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(review, encoding="utf-8")
    (base / "aclImdb" / "train" / "unsup").mkdir()
    (base / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("not to be read")
    (base / "aclImdb" / "README").write_text("nor this")


def imdb_lines(base: Path) -> None:
    """The same as JSON lines."""
    for split in ("train", "test"):
        rows = [
            json.dumps({"id": n, "rating": 8, "label": int(label == "pos"), "text": review})
            for (s, label, n), review in REVIEWS.items()
            if s == split
        ]
        (base / f"imdb_{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))


def imdb_archive() -> bytes:
    """The same as the archive of the release."""
    return _archive(
        {
            f"aclImdb/{split}/{label}/{number}_8.txt": review.encode()
            for (split, label, number), review in REVIEWS.items()
        }
    )


def cifar_batch(first: int, rows: int = 4) -> bytes:
    """Rows of the binary version: a label, 1024 bytes red, 1024 green, 1024 blue, row by row."""
    made = bytearray()
    for n in range(first, first + rows):
        made += bytes([n % 10]) + bytes([n] * 1024) + bytes([2 * n] * 1024) + bytes([3 * n] * 1023 + [0])
    return bytes(made)


CIFAR = {f"data_batch_{n}.bin": cifar_batch(4 * n) for n in range(1, 6)} | {
    "test_batch.bin": cifar_batch(40, 2)
}


def cifar_folder(base: Path) -> None:
    """20 training images, 4 in each batch, and 2 test images."""
    folder = base / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in CIFAR.items():
        (folder / name).write_bytes(content)


def cifar_archive() -> bytes:
    """The same as the archive of the release."""
    return _archive(
        {f"cifar-10-batches-bin/{name}": content for name, content in {**CIFAR, "readme.html": b"-"}.items()}
    )


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


LISTOPS = {
    "basic_train.tsv": [("( ( ( [MAX 2 ) 9 ) ] )", 9), ("5", 5), ("( ( ( [SM 6 ) 5 ) ] )", 1), ("0", 0)],
    "basic_val.tsv": [("( ( ( [MED 6 ) 3 ) ] )", 4)],
    "basic_test.tsv": [
        ("( ( ( [MAX 2 ) ( ( ( [MIN 4 ) 7 ) ] ) ) ] )", 4),
        ("( " * 12 + "[SM 1 ) 2 ) 3 ) 4 ) 5 ) 6 ) 7 ) 8 ) 9 ) 0 ) 0 ) ] )", 5),
    ],
}


def listops_files(base: Path) -> None:
    """The arena's three files, with the line ends of Python's csv writer, by which they were written."""
    base.mkdir(parents=True, exist_ok=True)
    for name, rows in LISTOPS.items():
        lines = ["Source\tTarget", *(f"{source}\t{target}" for source, target in rows)]
        (base / name).write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def png(rows: list[bytes]) -> bytes:
    """A greyscale PNG of 8 bits a pixel, after its specification."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pathfinder_tree(base: Path, side: int = 32, images: int = 20) -> None:
    """The arena's folders: image n has n in its first pixel, else n squared times i + 1 in row i, and label n % 2."""
    folder = base / f"pathfinder{side}" / "curv_contour_length_14"
    (folder / "metadata").mkdir(parents=True)
    lines: dict[int, list[str]] = {}
    for n in range(images):
        part = 2 if n < 4 else 10  # 10.npy is to be read after 2.npy
        name = f"sample_{n}.png"
        (folder / "imgs" / str(part)).mkdir(parents=True, exist_ok=True)
        rows = [bytes([n * n * (i + 1) % 256] * side) for i in range(side)]
        rows[0] = bytes([n]) + rows[0][1:]
        (folder / "imgs" / str(part) / name).write_bytes(png(rows))
        lines.setdefault(part, []).append(f"imgs/{part} {name} {n} {n % 2} 1.0 14 5 2 0.75")
    for part, found in lines.items():
        (folder / "metadata" / f"{part}.npy").write_text("\n".join(found) + "\n")


AAN = {
    "new_aan_pairs.train.tsv": [("1.0", "b'one paper'", "b'another'"), ("0.0", "b'x'", 'b"it\'s"')] * 3,
    "new_aan_pairs.eval.tsv": [("0.0", "b'a\\nb'", "b'\\xc3'")],
    "new_aan_pairs.test.tsv": [("1.0", "b'~~'", "b'0123456789abcdef'")],
}


def aan_files(base: Path) -> None:
    """The arena's three files of pairs: label, numbers of the papers, texts as byte literals."""
    base.mkdir(parents=True, exist_ok=True)
    for name, rows in AAN.items():
        lines = [f"{label}\t{n}\t{n + 100}\t{a}\t{b}\n" for n, (label, a, b) in enumerate(rows)]
        (base / name).write_text("".join(lines))
