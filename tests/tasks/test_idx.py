import gzip
import struct

import numpy as np
import pytest

from qs5.tasks import DataError, idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
HEADER = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4)


def test_reads_the_documented_layout():
    np.testing.assert_array_equal(idx.parse(HEADER + bytes(range(24)), name="f", axes=3), ARRAY)


def test_write_is_the_inverse():
    assert idx.write(ARRAY) == HEADER + ARRAY.tobytes()


def test_gzip_is_told_by_content():
    assert idx.decompress(gzip.compress(b"abc"), name="f") == b"abc"
    assert idx.decompress(b"abc", name="f") == b"abc"


@pytest.mark.parametrize("cut", [5, 15, -1])
def test_a_truncated_gzip_is_refused(cut: int):
    with pytest.raises(
        DataError, match=r"f: expected a complete gzip file, got a damaged one .*fetch it again"
    ):
        idx.decompress(gzip.compress(HEADER)[:cut], name="f")


def test_a_corrupt_gzip_is_refused():
    content = bytearray(gzip.compress(bytes(1000)))
    content[12] ^= 0xFF
    with pytest.raises(DataError, match="damaged"):
        idx.decompress(bytes(content), name="f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the idx header 00000803 .*, got an empty file"),
        (b"\x00\x00\x0d\x03" + HEADER[4:], "got 00000d03"),
        (b"\x00\x00\x08\x01" + HEADER[4:], "got 00000801"),
        (HEADER[:10], "truncated"),
        (HEADER + bytes(23), r"expected 40 bytes for shape \(2, 3, 4\), got 39; the file is truncated"),
        (HEADER + bytes(25), "got 41"),
    ],
)
def test_a_wrong_file_is_refused(content: bytes, message: str):
    with pytest.raises(DataError, match=f"^f: .*{message}"):
        idx.parse(content, name="f", axes=3)
