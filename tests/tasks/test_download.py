import hashlib
from pathlib import Path

import pytest

from qs5.tasks import DataError
from qs5.tasks.download import cache_dir, fetch

CONTENT = bytes(range(256)) * 100
MD5 = hashlib.md5(CONTENT).hexdigest()


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*")) if directory.exists() else []


def test_fetches_once(server, tmp_path: Path):
    server.files["f.gz"] = CONTENT
    for _ in range(2):
        assert fetch(server.url + "f.gz", tmp_path / "new" / "f.gz", md5=MD5).read_bytes() == CONTENT
    assert server.requests == ["f.gz"]
    assert files_in(tmp_path / "new") == ["f.gz"]


def test_a_download_that_broke_off_goes_on(server, tmp_path: Path):
    server.files["f.gz"] = CONTENT
    server.truncated.add("f.gz")
    for got in (12800, 19200):
        with pytest.raises(DataError, match=rf"f\.gz: expected 25600 bytes, got {got}; the connection broke"):
            fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5)
        assert files_in(tmp_path) == ["f.gz.part"]
    server.truncated.clear()
    assert fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=12800-", "bytes=19200-"]
    assert files_in(tmp_path) == ["f.gz"]


def test_a_server_that_cannot_go_on_sends_everything_again(server, tmp_path: Path):
    server.files["f.gz"], server.resumes = CONTENT, False
    (tmp_path / "f.gz.part").write_bytes(CONTENT[:100])
    assert fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("more", [b"", b"x"])
def test_a_part_that_needs_no_more_bytes_is_checked(more: bytes, server, tmp_path: Path):
    server.files["f.gz"] = CONTENT
    (tmp_path / "f.gz.part").write_bytes(CONTENT + more)
    if more:
        with pytest.raises(DataError, match="expected a file with MD5"):
            fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5)
        assert files_in(tmp_path) == []
    else:
        assert fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5).read_bytes() == CONTENT


def test_a_wrong_md5_leaves_nothing(server, tmp_path: Path):
    server.files["f.gz"] = CONTENT[1:]
    with pytest.raises(DataError, match=f"expected a file with MD5 {MD5}, got 25599 bytes with MD5"):
        fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5)
    assert files_in(tmp_path) == []


def test_a_missing_file_is_reported(server, tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.gz: expected the file, got an error \(Not Found\)"):
        fetch(server.url + "none.gz", tmp_path / "f.gz", md5=MD5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/f.gz", "no-url/f.gz"])
def test_no_server_is_reported(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DataError, match=f"^{url}: expected the file, got an error"):
        fetch(url, tmp_path / "f.gz", md5=MD5)


def test_a_cache_that_cannot_be_written_is_reported(server, tmp_path: Path):
    server.files["f.gz"] = CONTENT
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"expected a writable cache, got .*set XDG_CACHE_HOME"):
        fetch(server.url + "f.gz", tmp_path / "file" / "f.gz", md5=MD5)


def test_a_failed_rename_loses_nothing(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    server.files["f.gz"] = CONTENT
    with monkeypatch.context() as patch:
        patch.setattr("qs5.tasks.download.os.replace", refuse)
        with pytest.raises(DataError, match="disk full"):
            fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5)
    assert fetch(server.url + "f.gz", tmp_path / "f.gz", md5=MD5).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=25600-"]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/qs5")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_dir() == Path("/home/me/.cache/qs5")
