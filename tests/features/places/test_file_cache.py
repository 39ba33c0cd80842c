"""Copies are made once, bounded, and whole; whoever waits for one gets it."""

import errno
import os
import threading
import time

import pytest

from features.places.file_cache import CacheSettings, FileCache, keep_copies
from vjepa_loc.errors import ConfigError


def cache_of(folder, limit_bytes=1000) -> FileCache:
    return FileCache("s3://bucket/a", CacheSettings(folder, limit_bytes))


def add(cache, name, size=100):
    return cache.get(name, size, lambda target: target.write_bytes(bytes(size)))


def test_the_copies_that_were_not_opened_for_longest_go(tmp_path):
    cache = cache_of(tmp_path)
    for number in range(9):
        path = add(cache, f"x/{number}")
        opened_s = time.time() - 10_000 + number
        os.utime(path, (opened_s, opened_s))
    status = cache.path("x/0").stat()
    add(cache, "x/0")
    assert cache.path("x/0").stat().st_mtime_ns == status.st_mtime_ns, "readers would take it for another file"
    other = FileCache("s3://bucket/b", CacheSettings(tmp_path, 1000))
    add(other, "y", 200)
    left = {file.name for file in (tmp_path / "stores").rglob("*") if file.is_file()}
    assert left == {"0", "3", "4", "5", "6", "7", "8", "y"}
    assert add(cache, "large", 5000).stat().st_size == 5000, "one file beyond the limit is still read"


def test_a_file_is_downloaded_once_however_many_ask(tmp_path):
    downloads, start = [], threading.Barrier(4)

    def download(target):
        downloads.append(target)
        time.sleep(0.1)
        target.write_bytes(b"x")

    def ask():
        start.wait()
        assert cache_of(tmp_path).get("a", 1, download).read_bytes() == b"x"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join(timeout=20) for thread in threads]
    assert len(downloads) == 1


def test_a_failed_or_cut_download_leaves_nothing(tmp_path):
    cache = cache_of(tmp_path)

    def fail(target):
        target.write_bytes(b"half")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.get("a", 8, fail)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.parent.name != "locks"]
    add(cache, "a", 8).write_bytes(b"cut")
    assert not cache.has("a", 8) and add(cache, "a", 8).stat().st_size == 8


def test_a_full_disk_makes_room_and_tries_again(tmp_path):
    cache, attempts = cache_of(tmp_path, 10_000), []
    add(cache, "old", 500)

    def fill(target):
        attempts.append(cache.has("old", 500))
        if cache.has("old", 500):
            raise OSError(errno.ENOSPC, "No space left on device")
        target.write_bytes(bytes(100))

    assert cache.get("new", 100, fill).stat().st_size == 100 and attempts == [True, False]
    with pytest.raises(OSError, match="No space"):
        cache_of(tmp_path / "other").get("new", 100, lambda target: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))


def test_what_killed_processes_left_goes_after_a_day(tmp_path):
    cache = cache_of(tmp_path, 100)
    (tmp_path / "partial").mkdir()
    for name, age_s in (("old", 2 * 24 * 3600), ("young", 60)):
        (tmp_path / "partial" / name).write_bytes(b"x")
        os.utime(tmp_path / "partial" / name, (time.time() - age_s,) * 2)
    add(cache, "a", 50)
    assert [file.name for file in (tmp_path / "partial").iterdir()] == ["young"]


def test_the_settings_come_from_the_environment(monkeypatch, tmp_path):
    for name in ("VJEPA_LOC_CACHE", "VJEPA_LOC_CACHE_GIB", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("VJEPA_LOC_CACHE_GIB", "0.5")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CacheSettings.from_environment() == CacheSettings(tmp_path / ".cache/vjepa_loc", 1 << 29)
    keep_copies(tmp_path / "here", 2)
    assert CacheSettings.from_environment() == CacheSettings(tmp_path / "here", 2 << 30)
    for wrong in ("much", "0", "nan", "inf"):
        monkeypatch.setenv("VJEPA_LOC_CACHE_GIB", wrong)
        with pytest.raises(ConfigError, match="VJEPA_LOC_CACHE_GIB: expected a positive number of GiB, got"):
            CacheSettings.from_environment()
