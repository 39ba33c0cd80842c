"""Requests to an object storage service, through obstore, with errors that a person can use.

Names are those of objects below the store's URL. The service's credentials and address come from the environment, as
obstore reads it (`AWS_*`, `GOOGLE_*`; docs/remote.md).
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from features.checksum import crc32c
from features.durable import storage_errors, write_all
from vjepa_loc.errors import ConfigError, StoreError

# A wrong address or missing credentials are told soon; once the service has answered, outages are waited for.
_FIRST_ANSWER_S = 10
_OUTAGE_S = 180
_PART_BYTES = 8 << 20
_STREAM_BYTES = 8 << 20
_NO_BUCKET = "NoSuchBucket"


class ObjectState(NamedTuple):
    """An object as listings show it: `name` below the URL, `etag` of its content."""

    name: str
    size: int
    etag: str
    modified_s: float


class ObjectClient:
    """Objects below one URL; belongs to one process and may be used by its threads. Every failure is a `StoreError`
    whose `errno` says that the service, and not one video, is the trouble; an object that is not there is a
    `FileNotFoundError`.
    """

    def __init__(self, url: str):
        self._url = url
        self._obstore = _import_obstore()
        self._store = self._connect(_FIRST_ANSWER_S)
        self._has_answered = False

    def get(self, name: str) -> tuple[bytes, str]:
        """The bytes and the etag."""
        with self._errors("reading", name):
            result = self._obstore.get(self._store, name)
            return bytes(result.bytes()), _etag(result.meta)

    def head(self, name: str) -> ObjectState | None:
        """None where there is no such object."""
        try:
            with self._errors("looking for", name):
                return _state(self._obstore.head(self._store, name))
        except FileNotFoundError:
            return None

    def list_below(self, folder: str) -> list[ObjectState]:
        """All objects below a folder, sorted by name."""
        with self._errors("listing", folder):
            chunks = self._obstore.list(self._store, prefix=folder)
            return sorted(_state(meta) for chunk in chunks for meta in chunk)

    def list_directly(self, folder: str) -> list[ObjectState]:
        """The objects directly in a folder, sorted by name."""
        with self._errors("listing", folder):
            return sorted(map(_state, self._obstore.list_with_delimiter(self._store, prefix=folder)["objects"]))

    def put(self, name: str, data: bytes) -> None:
        with self._errors("writing", name):
            self._obstore.put(self._store, name, data, use_multipart=False)

    def put_new(self, name: str, data: bytes) -> bool:
        """`If-None-Match: *`; False where the object exists."""
        return self._put_if(name, data, "create")

    def put_over(self, name: str, data: bytes, etag: str) -> bool:
        """`If-Match`; False where the object is another one now, or gone."""
        # S3 compares the ETag, Google the number of the generation: `_etag` holds both where there are both.
        e_tag, _, version = etag.partition(" ")
        try:
            return self._put_if(name, data, {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag})
        except FileNotFoundError:
            return False

    def upload(self, file: Path, name: str) -> None:
        """A file, in parts where it is large: the object appears when all of it is there."""
        with self._errors("writing", name), storage_errors("reading", file):
            self._obstore.put(self._store, name, file, chunk_size=_PART_BYTES, max_concurrency=3)

    def download(self, name: str, target: Path) -> tuple[int, str]:
        """Into the new file `target`: its size and crc32c in hex, as they came."""
        crc = size = 0
        with self._errors("reading", name):
            result = self._obstore.get(self._store, name)
            with open(target, "xb", buffering=0) as file:
                for block in result.stream(min_chunk_size=_STREAM_BYTES):
                    crc = crc32c(block, crc)
                    size += len(block)
                    with storage_errors("downloading", target):
                        write_all(file.fileno(), block)
        return size, f"{crc:08x}"

    def delete(self, names: Sequence[str]) -> None:
        """Objects that are not there are none to delete."""
        if names:
            with self._errors("deleting", names[0]), contextlib.suppress(FileNotFoundError):
                self._obstore.delete(self._store, list(names))

    def _put_if(self, name: str, data: bytes, mode: Any) -> bool:
        exceptions = self._obstore.exceptions
        with self._errors("writing", name):
            try:
                self._obstore.put(self._store, name, data, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError, exceptions.NotModifiedError):
                return False
        return True

    def _connect(self, patience_s: float) -> Any:
        store = self._obstore.store
        options = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "600s"}
        if (allow_http := os.environ.get("AWS_ALLOW_HTTP")) is not None:
            options["allow_http"] = allow_http.lower() in ("1", "true", "yes")
        retry = {"max_retries": 20, "retry_timeout": timedelta(seconds=patience_s)}
        try:
            if self._url.startswith("gs://"):
                return store.GCSStore.from_url(self._url, client_options=options, retry_config=retry)
            # The service computes it again of what has arrived.
            config = {} if "AWS_CHECKSUM_ALGORITHM" in os.environ else {"checksum_algorithm": "SHA256"}
            return store.S3Store.from_url(self._url, config=config, client_options=options, retry_config=retry)
        except (self._obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"the store {self._url}: {_reason(error)}; check the URL and the environment") from None

    @contextlib.contextmanager
    def _errors(self, doing: str, name: str) -> Iterator[None]:
        exceptions = self._obstore.exceptions
        try:
            yield
        except FileNotFoundError as error:
            if _NO_BUCKET in str(error):
                raise self._no_bucket() from None
            self._answered()
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{self._url}/{name}") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            what = f"{doing} {name or 'it'} is not allowed ({_reason(error)}); check the credentials in the environment"
            raise self._refusal(errno.EACCES, what) from None
        except exceptions.BaseError as error:
            if _NO_BUCKET in str(error):
                raise self._no_bucket() from None
            what = f"{doing} {name or 'it'} failed ({_reason(error)})"
            if not self._has_answered:
                what += "; check the network, the address and the credentials in the environment"
            raise self._refusal(errno.EIO, what) from None
        self._answered()

    def _refusal(self, number: int, what: str) -> StoreError:
        error = StoreError(f"the store {self._url}: {what}")
        error.errno = number
        return error

    def _no_bucket(self) -> StoreError:
        return self._refusal(errno.ENOENT, "there is no such bucket; make it, or check the URL")

    def _answered(self) -> None:
        if not self._has_answered:
            self._has_answered = True
            self._store = self._connect(_OUTAGE_S)


def _import_obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise StoreError(
            f"a store by URL needs the package obstore, which cannot be imported ({error}); "
            "install it with: pip install 'vjepa-loc[remote]'"
        ) from None
    return obstore


def _etag(meta: dict[str, Any]) -> str:
    return " ".join(filter(None, (meta["e_tag"], meta.get("version"))))


def _state(meta: dict[str, Any]) -> ObjectState:
    return ObjectState(meta["path"], meta["size"], _etag(meta), meta["last_modified"].timestamp())


def _reason(error: Exception) -> str:
    """The last lines of obstore's errors repeat the first as a tree of causes."""
    text = str(error).partition("\n\nDebug source:")[0]
    return " ".join(text.split())[:300]
