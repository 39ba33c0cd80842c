"""The bytes behind a video: what can be said before decoding, and their hash."""

import errno
import hashlib
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from features.schema import Source
from vjepa_loc.errors import VideoError, VideoReadError

LFS_HEADER = b"version https://git-lfs"
READ_BYTES = 1 << 20
# A disk or a network that does not answer now may answer later.
PASSING_ERRNOS = frozenset({
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETDOWN,
    errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
})


def is_passing(error: Exception) -> bool:
    """Whether reading failed for a reason that may be gone later; FFmpeg's errors carry the system's number too."""
    return getattr(error, "errno", None) in PASSING_ERRNOS


def read_error(error: Exception, message: str) -> VideoError:
    """`message` as a VideoReadError, which is tried again, where `error` may pass, else as a VideoError."""
    return VideoReadError(message) if is_passing(error) else VideoError(message)


def check_video_file(path: Path) -> None:
    """Raises VideoError, one line, for what no decoder needs to see: absent, empty, a Git-LFS pointer, or no regular file."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            # Opening a pipe would wait for its writer for ever.
            raise VideoError(f"{path}: expected a video file, got {_kind(state.st_mode)}")
        size = state.st_size
        with path.open("rb") as file:
            head = file.read(len(LFS_HEADER))
    except FileNotFoundError:
        raise VideoError(f"{path}: no such video file; correct the dataset's `file` or put the video there") from None
    except OSError as error:
        advice = "check the disk or the network" if is_passing(error) else "check the file's permissions"
        raise read_error(error, f"{path}: cannot be read ({error.strerror}); {advice}") from None
    if head == LFS_HEADER:
        raise VideoError(f"{path}: a Git-LFS pointer of {size} bytes, not a video; run `git lfs pull` where it came from")
    if not head:
        raise VideoError(f"{path}: expected a video, got an empty file (0 bytes); copy it again")


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def file_state(files: Sequence[Path]) -> tuple[int, int]:
    """Bytes in all, and the newest modification time in ns."""
    stats = [file.stat() for file in files]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def read_source(path: Path, files: Sequence[Path], on_progress: Callable[[], object] = lambda: None) -> Source:
    """Size, time and sha256 of a video: of its bytes, or, for a folder, of its images' names and bytes in their order.

    Calls `on_progress` after every MiB. Raises VideoError where the files cannot be read.
    """
    digest = hashlib.sha256()
    try:
        size, mtime_ns = file_state(files)
        for file in files:
            if path.is_dir():
                digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(READ_BYTES):
                    digest.update(chunk)
                    on_progress()
    except OSError as error:
        raise read_error(error, f"{path}: cannot be read again to hash it ({error.strerror})") from None
    return Source(name=path.name, size=size, mtime_ns=mtime_ns, sha256=digest.hexdigest())
