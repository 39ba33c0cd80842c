"""A store as objects of a bucket (s3://, gs://). There is no rename and no link: what creates and replaces is the
conditional put (`If-None-Match: *`, `If-Match`), which the service has to honour.

A generation is staged on this machine, uploaded under its own unique name, and exists with its commit. Reading maps
copies in a `FileCache`; what must know the truth (commits, claims, `verify`) asks the service.
"""

import contextlib
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from features.durable import storage_errors
from features.places import Entry, Tree
from features.places.file_cache import CacheSettings, FileCache
from features.places.local import LocalPlace
from features.places.parallel import LARGE_AT_ONCE, SMALL_AT_ONCE, side_by_side
from features.zarr_layout import GROUP_BYTES
from vjepa_loc.errors import CorruptStoreError, StoreError

if TYPE_CHECKING:
    from features.commits import Commit, FileStamp
    from features.places.object_client import ObjectClient

SCHEMES = ("s3", "gs")
_URL = re.compile(r"([a-z0-9]+)://([^/?#\s]+)((?:/[^/?#\s]+)*)/*")
# A writer's lines go into objects of about this size, because each line writes its object anew.
_LINES_BYTES = 16 << 10

# The process that uses obstore itself: in a child that was forked from it obstore would hang.
_obstore_pid: int | None = None


class ObjectPlace:
    """See `Place`."""

    appends = False
    knows_outcome = False

    def __init__(self, url: str, cache: CacheSettings):
        self.path = url
        self._settings = cache
        self._cache = FileCache(url, cache)
        self._scratch = LocalPlace(cache.folder / "unfinished" / self._cache.folder.name)
        self._clients: dict[int, ObjectClient] = {}
        self._fetchers: dict[int, ThreadPoolExecutor] = {}
        self._coming: set[tuple[int, str]] = set()
        self._locks: dict[int, threading.Lock] = {}
        self._is_conditional = False
        self._shared_sizes: dict[str, int] = {}
        self._lines: dict[tuple[str, str], tuple[int, bytes]] = {}

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Raises `StoreError` for another kind of URL; the cache is that of the environment."""
        match = _URL.fullmatch(url)
        if match is None or match[1] not in SCHEMES:
            raise StoreError(f"the store {url}: expected a folder, s3://BUCKET/NAME or gs://BUCKET/NAME")
        if not match[3]:
            raise StoreError(f"the store {url}: expected a name below the bucket, such as {match[1]}://{match[2]}/features")
        return cls(f"{match[1]}://{match[2]}{match[3]}", CacheSettings.from_environment())

    def __reduce__(self) -> tuple:
        # Neither clients nor locks travel to another process.
        return ObjectPlace, (self.path, self._settings)

    @property
    def staging(self) -> Path:
        folder = self._scratch.staging
        with storage_errors("making the folder for unfinished videos", folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def make(self) -> None:
        self._require_conditional_puts()

    def missing_folders(self) -> list[str]:
        return []

    def read(self, name: str) -> bytes:
        return self._client.get(name)[0]

    def read_versioned(self, name: str) -> tuple[bytes, str]:
        return self._client.get(name)

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        def read(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        return side_by_side(read, names, SMALL_AT_ONCE)

    def entry(self, name: str) -> Entry | None:
        state = self._client.head(name)
        return None if state is None else Entry(*state)

    def entries(self, folder: str) -> list[Entry]:
        return [Entry(*state) for state in self._client.list_directly(folder)]

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        names, listed, found = list(names), {}, {}
        # tokens.zarr/videos/<key>: one request shows all files of a video.
        for folder in {"/".join(name.split("/")[:3]) for name in names if name.count("/") > 2}:
            listed.update((state.name, state.size) for state in self._client.list_below(folder))
        for name in names:
            size = listed.get(name) if name.count("/") > 2 else self._shared_size(name)
            if size is not None:
                found[name] = size
        return found

    def local_file(self, name: str, stamp: "FileStamp") -> Path:
        def download(target: Path) -> None:
            try:
                size, crc = self.copy_out(name, target)
            except FileNotFoundError:
                raise CorruptStoreError(f"{self.where(name)} is missing; `cli.py store verify` lists what is wrong") from None
            if (size, crc) != (stamp.size, stamp.crc32c):
                raise CorruptStoreError(
                    f"{self.where(name)}: expected {stamp.size} bytes with crc32c {stamp.crc32c}, got {size} with {crc}; "
                    "`cli.py store repair` extracts its video again"
                )

        with storage_errors(f"keeping a copy of {self.where(name)}", self._settings.folder, stamp.size):
            return self._cache.get(name, stamp.size, download)

    def local_folder(self, folder: str, stamps: dict[str, "FileStamp"]) -> Path:
        list(side_by_side(lambda name: self.local_file(f"{folder}/{name}", stamps[name]), stamps, SMALL_AT_ONCE))
        return self._cache.path(folder)

    def fetch_soon(self, name: str, stamp: "FileStamp") -> bool:
        if self._cache.has(name, stamp.size):
            return True
        # Asked again and again while it is on its way: for every window of a video.
        coming = os.getpid(), name
        if coming not in self._coming:
            self._coming.add(coming)
            self._fetcher.submit(self._fetch, name, stamp)
        return False

    def forget(self, name: str) -> str:
        self._cache.forget(name)
        return "this machine's copy of it was removed, reading it again downloads it again"

    @contextlib.contextmanager
    def folder_of(self, commit: "Commit") -> Iterator[Path]:
        generation = f"tokens.zarr/{commit.path}"
        names = {f"tokens.zarr/{name}" for name in commit.files if not name.startswith(f"{commit.path}/")}
        names.update(state.name for state in self._client.list_below(generation))
        with tempfile.TemporaryDirectory(prefix="check-", dir=self.staging) as folder:
            def fetch(name: str) -> None:
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self.copy_out(name, target)
                except FileNotFoundError:
                    # It is missing in the folder as well, and found to be.
                    return

            list(side_by_side(fetch, sorted(names), LARGE_AT_ONCE))
            yield Path(folder)

    def copy_out(self, name: str, target: Path) -> tuple[int, str]:
        return self._client.download(name, target)

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        self._require_conditional_puts()
        return self._client.put_new(name, data) or self._holds(name, data)

    def replace(self, name: str, data: bytes, version: str | None = None, durable: bool = True) -> bool:
        if version is None:
            self._client.put(name, data)
            return True
        self._require_conditional_puts()
        return self._client.put_over(name, data, version) or self._holds(name, data)

    def append_line(self, folder: str, writer: str, line: bytes) -> None:
        number, lines = self._lines.get((folder, writer), (0, b""))
        if len(lines) + len(line) > _LINES_BYTES:
            number, lines = number + 1, b""
        self._client.put(f"{folder}/{writer}-{number:04d}.jsonl", lines + line)
        self._lines[folder, writer] = number, lines + line

    def renew(self, name: str) -> None:
        try:
            data, version = self.read_versioned(name)
        except FileNotFoundError:
            return
        self.replace(name, data, version)

    def publish(self, staged: Path, generation: str) -> None:
        files = {f"{generation}/{file.relative_to(staged)}": file for file in staged.rglob("*") if file.is_file()}
        list(side_by_side(lambda name: self.upload(files[name], name), files, LARGE_AT_ONCE))
        self.check_arrived({name: file.stat().st_size for name, file in files.items()})
        self.make_groups(generation)

    def upload(self, file: Path, name: str) -> None:
        """Writes a local file as the object `name`, all of it or nothing."""
        self._client.upload(file, name)

    def idle_s(self, generation: str) -> float | None:
        """The time since one of a generation's objects was written; None where there is none."""
        written_s = [state.modified_s for state in self._client.list_below(generation)]
        return time.time() - max(written_s) if written_s else None

    def check_arrived(self, sizes: dict[str, int]) -> None:
        """Raises `StoreError` where an object that was uploaded is not there in its size."""
        there = self.sizes(sizes)
        for name, size in sizes.items():
            if there.get(name) != size:
                got = f"{there[name]} arrived" if name in there else "nothing arrived"
                raise StoreError(f"{self.where(name)}: sent {size} bytes, {got}; run the command again")

    def make_groups(self, generation: str) -> None:
        """The groups above a generation."""
        video = generation.rpartition("/")[0]
        for name in (f"{video.rpartition('/')[0]}/zarr.json", f"{video}/zarr.json"):
            if self._shared_sizes.get(name) != len(GROUP_BYTES) and not self._holds(name, GROUP_BYTES):
                self._client.put(name, GROUP_BYTES)
            self._shared_sizes[name] = len(GROUP_BYTES)

    def renew_generation(self, generation: str) -> None:
        # Objects cannot be touched; a small one beside them says it.
        self._client.put(f"staging/{_renewed_name(generation)}", b"")

    def generations(self) -> list[Tree]:
        now = time.time()
        written_s = {state.name.partition("/")[2]: state.modified_s for state in self._client.list_below("staging")}
        names = set()
        for state in self._client.list_below("tokens.zarr/videos"):
            generation, _, file = state.name.split("/", 3)[-1].partition("/")
            if file:
                name = state.name.removesuffix(f"/{file}")
                names.add(name)
                written_s[_renewed_name(name)] = max(written_s.get(_renewed_name(name), 0), state.modified_s)
        return [Tree(name, now - written_s[_renewed_name(name)]) for name in sorted(names)]

    def staged(self) -> list[Tree]:
        now = time.time()
        objects = [Tree(state.name, now - state.modified_s) for state in self._client.list_below("staging")]
        return objects + self._scratch.staged()

    def tree_bytes(self, name: str) -> int:
        if self._is_scratch(name):
            return self._scratch.tree_bytes(name)
        below = self._client.list_below(name)
        return sum(state.size for state in below or filter(None, [self._client.head(name)]))

    def remove(self, name: str) -> None:
        self._client.delete([name])

    def remove_tree(self, name: str) -> None:
        if self._is_scratch(name):
            self._scratch.remove_tree(name)
        else:
            self._client.delete([state.name for state in self._client.list_below(name)] or [name])

    def _is_scratch(self, name: str) -> bool:
        return os.path.lexists(self._scratch.path / name)

    def _fetch(self, name: str, stamp: "FileStamp") -> None:
        # What is wrong is said to whoever reads the file.
        with contextlib.suppress(OSError):
            self.local_file(name, stamp)
        self._coming.discard((os.getpid(), name))

    @property
    def _fetcher(self) -> ThreadPoolExecutor:
        fetcher = self._fetchers.get(os.getpid())
        if fetcher is None:
            fetcher = self._fetchers.setdefault(os.getpid(), ThreadPoolExecutor(LARGE_AT_ONCE, "fetch objects"))
        return fetcher

    @property
    def _client(self) -> "ObjectClient":
        client = self._clients.get(os.getpid())
        if client is None:
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                client = self._clients.get(os.getpid()) or self._clients.setdefault(os.getpid(), _client_of(self.path))
        return client

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether the object is what was to be written: a put whose answer was lost is refused when it is repeated."""
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def _shared_size(self, name: str) -> int | None:
        # The root and the group of all videos never change.
        if name not in self._shared_sizes and (entry := self.entry(name)) is not None:
            self._shared_sizes[name] = entry.size
        return self._shared_sizes.get(name)

    def _require_conditional_puts(self) -> None:
        """Asked once: without them two writers could both believe that theirs is the video that counts."""
        if self._is_conditional:
            return
        name, client = f"staging/probe-{secrets.token_hex(8)}", self._client
        client.put(name, b"first")
        try:
            _, first = client.get(name)
            honoured = not client.put_new(name, b"second") and client.put_over(name, b"third", first)
            honoured = honoured and not client.put_over(name, b"fourth", first)
        finally:
            client.delete([name])
        if not honoured:
            raise StoreError(
                f"the store {self.path}: this service ignores conditional puts (If-None-Match, If-Match), without which "
                "two writers can destroy each other's videos; use a service that honours them, or a folder and `store push`"
            )
        self._is_conditional = True


def _renewed_name(generation: str) -> str:
    return "renewed-" + "-".join(generation.split("/")[-2:])


def _client_of(url: str) -> "ObjectClient":
    global _obstore_pid
    if _obstore_pid is None:
        _obstore_pid = os.getpid()
    if _obstore_pid == os.getpid():
        from features.places.object_client import ObjectClient

        return ObjectClient(url)
    from features.places.forked_client import ForkedClient

    return ForkedClient(url)
