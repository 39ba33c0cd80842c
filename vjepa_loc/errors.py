"""The error tree: every error a user can cause is a `VjepaLocError` and also the matching builtin.

A message is one line that says what is wrong, where, what was expected, what was found, and what to do.
`cli.py` prints that line and exits with 2; nothing else in the project catches these classes wholesale.
"""


class VjepaLocError(Exception):
    """Base of all errors that speak to the user. `str(error)` is one line.

    `passing`: the same work may succeed when it is tried again.
    """

    passing = False

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))

    def __str__(self) -> str:
        # LookupError's children would print the repr of their argument.
        return str(self.args[0])


class ConfigError(VjepaLocError, ValueError):
    """A setting is misspelt, has the wrong type, or contradicts another one."""


class UnknownNameError(VjepaLocError, LookupError):
    """A name (split, head, encoder, format, label, metric) is not among those that exist."""


class MissingFileError(VjepaLocError, FileNotFoundError):
    """A file that the command needs does not exist."""


class DatasetError(VjepaLocError, ValueError):
    """A dataset or prediction file breaks its contract."""


class VideoError(VjepaLocError, ValueError):
    """A video cannot be used: unreadable, no video stream, or at odds with the dataset."""


class VideoReadError(VideoError):
    """A video's bytes cannot be read at this moment: a disk or a network that does not answer."""

    passing = True


class DecoderDiedError(VideoError):
    """The process that decoded a video died: of the video, or because memory ran out."""

    passing = True


class DecodeTimeoutError(VjepaLocError, TimeoutError):
    """A decoder made no progress within its deadline and was killed."""

    passing = True


class WeightsError(VjepaLocError, OSError):
    """An encoder's weights are absent or do not fit the architecture."""


class StoreError(VjepaLocError, OSError):
    """A store cannot be read or written."""


class StoreMismatchError(VjepaLocError, ValueError):
    """A store holds another encoding than the one asked for."""


class CorruptStoreError(StoreError):
    """Bytes in a store are missing, truncated, or fail their checksum."""


class RunError(VjepaLocError, ValueError):
    """A run folder is incomplete, or its training cannot be done or continued."""


class WorkerError(VjepaLocError, RuntimeError):
    """The processes that were to do the work ended, or cannot be started."""


def nearest_name(name: str, names) -> str:
    """` Did you mean 'x'?` for the closest of `names`, or an empty string when none is close."""
    import difflib

    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
