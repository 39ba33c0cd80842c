"""Decoding where it can be killed: a child process per `DecodeWorker`, kept for many videos, replaced after a hang or a crash.

    worker = DecodeWorker(deadline_s=60)
    for item in worker.stream(path, Prepare("stretch", 256, 256, 16)):
        ...  # FrameBatch, FrameBatch, ..., and last a DecodeSummary

One worker decodes one video at a time with one thread; use several for more. All file access happens in the child: a file
system that hangs is caught by the deadline too. Frames come through memory that both processes share (`stream_shared`); `stream`
copies them out of it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import torch

from features.decode_protocol import (
    Alive, DecodeSummary, Failure, FrameBatch, Frames, Opened, Prepare, Ready, Release, Request,
)
from features.frame_ring import FrameRing
from vjepa_loc.errors import ConfigError, DecoderDiedError, DecodeTimeoutError

__all__ = ["DecodeSummary", "DecodeWorker", "FrameBatch", "Prepare"]

# Loading the libraries on a busy machine is slow and says nothing about a video.
START_DEADLINE_S = 180.0
REAP_DEADLINE_S = 5.0
PROJECT_FOLDER = Path(__file__).resolve().parents[1]


class DecodeWorker:
    """See the module's docstring. `deadline_s` is the longest time without progress. A context manager; `close` ends the child."""

    def __init__(self, deadline_s: float = 60.0):
        if not deadline_s > 0:
            raise ConfigError(f"deadline_s: expected a positive number of seconds, got {deadline_s}")
        self.deadline_s = deadline_s
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._ring: FrameRing | None = None
        self._stderr = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._process is None else self._process.pid

    def stream(
        self, path: str | Path, prepare: Prepare, decoder: str = "pyav", nominal_fps: float | Fraction | None = None
    ) -> Iterator[FrameBatch | DecodeSummary]:
        """Yields the sampled, resized frames of a video in batches, then its DecodeSummary.

        Raises VideoError where the video cannot be decoded, DecoderDiedError where the child died of it, and
        DecodeTimeoutError where it made no progress for `deadline_s`; the worker can be used for the next video either way. Time
        that the consumer takes does not count. Leaving the iteration early ends the child.
        """
        num_frames = 0
        with contextlib.closing(self.stream_shared(path, prepare, 0, decoder, nominal_fps)) as messages:
            for message in messages:
                if isinstance(message, FrameBatch):
                    num_frames += len(message.frame_numbers_n)
                    message = replace(message, frames_nhw3=message.frames_nhw3.clone())
                    self.release(num_frames)
                yield message

    def stream_shared(
        self, path: str | Path, prepare: Prepare, num_held: int, decoder: str = "pyav",
        nominal_fps: float | Fraction | None = None,
    ) -> Iterator[FrameBatch | DecodeSummary]:
        """As `stream`, but frames lie in shared memory and are valid until `release`, or the next video, gives their place away.

        The consumer may hold the last `num_held` frames and more while it asks for further ones.
        """
        path = Path(path).absolute()
        if self._process is not None and self._process.poll() is not None:
            # It was interrupted, or somebody killed it, while it had nothing to do.
            self._kill()
        if self._process is None:
            self._start(path)
        # One batch that is being filled, and one that lets the child run ahead.
        ring_frames = (-(-num_held // prepare.batch_frames) + 2) * prepare.batch_frames
        finished = False
        try:
            self._ring.grow(ring_frames * prepare.frame_bytes)
            self._send(path, Request(str(path), prepare, decoder, nominal_fps, ring_frames))
            opened: Opened | None = None
            slots_nhw3: torch.Tensor | None = None
            num_frames = 0
            while True:
                message = self._receive(path, self.deadline_s)
                if isinstance(message, Frames):
                    start, num_new = num_frames % ring_frames, len(message.frame_numbers_n)
                    frames_nhw3 = slots_nhw3[start : start + num_new]
                    num_frames += num_new
                    yield FrameBatch(message.frame_numbers_n, frames_nhw3, opened.info, opened.space_grid, opened.versions)
                elif isinstance(message, Opened):
                    opened = message
                    height, width = opened.space_grid.input_height, opened.space_grid.input_width
                    slots_nhw3 = torch.from_numpy(self._ring.frames(ring_frames, height, width))
                elif isinstance(message, Failure):
                    finished = True
                    raise message.error
                elif isinstance(message, DecodeSummary):
                    finished = True
                    yield message
                    return
                elif not isinstance(message, Alive):
                    raise RuntimeError(f"the decoding process sent {type(message).__name__}")
        finally:
            # A child in the middle of a video would answer the next request with the rest of this one.
            if not finished:
                self._kill()

    def release(self, num_frames: int) -> None:
        """Of the video that is being streamed, its first `num_frames` sampled frames may be overwritten."""
        # A child that is gone is told of by the stream.
        with contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.send(Release(num_frames))

    def interrupt(self) -> None:
        """Kills the child, also from another thread: a `stream` that waits for it raises VideoError, the next one starts another."""
        process = self._process
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(REAP_DEADLINE_S)

    def close(self) -> None:
        """Ends the child. The worker can be used again; it then starts another."""
        self._kill()

    def _start(self, path: Path) -> None:
        search_path = [str(PROJECT_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(search_path), "OMP_NUM_THREADS": "1"}
        with contextlib.ExitStack() as opened:
            ours, theirs = map(opened.enter_context, socket.socketpair())
            stderr = opened.enter_context(tempfile.TemporaryFile())
            ring = FrameRing.create()
            opened.callback(ring.close)
            # -P: a folder named like one of our packages in the current folder must not be imported instead.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "features.decode_child", str(theirs.fileno()), str(ring.fd)],
                stdin=subprocess.PIPE, stdout=stderr, stderr=stderr, pass_fds=[theirs.fileno(), ring.fd], env=environment,
            )
            # From here on they are closed with the child.
            opened.pop_all()
        theirs.close()
        self._connection, self._stderr, self._ring = Connection(ours.detach()), stderr, ring
        try:
            message = self._receive(path, START_DEADLINE_S)
            if not isinstance(message, Ready):
                raise RuntimeError(f"the decoding process sent {type(message).__name__} first")
        except BaseException:
            self._kill()
            raise

    def _send(self, path: Path, request: Request) -> None:
        try:
            self._connection.send(request)
        except OSError:
            raise self._death(path) from None

    def _receive(self, path: Path, deadline_s: float) -> object:
        try:
            if not self._connection.poll(deadline_s):
                self._kill()
                raise DecodeTimeoutError(
                    f"{path}: the decoder made no progress for {deadline_s:g} s and was stopped; "
                    "look at the file, or raise extract.deadline_s"
                )
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._death(path) from None

    def _death(self, path: Path) -> DecoderDiedError:
        """The error for a child that is gone; forgets the child."""
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self._kill()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        return DecoderDiedError(f"{path}: the decoding process died with {how}{hint}{': ' + lines[-1] if lines else ''}")

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process inside a hanging file system cannot even be killed; it goes when the file system answers.
            process.wait(REAP_DEADLINE_S)
        self._connection.close()
        self._stderr.close()
        self._ring.close()
        self._connection = self._stderr = self._ring = None
