"""The extraction at work: decoding, encoding and writing at once, over several videos, with bounded queues between them.

    decisions -> decoding threads, one decoding process each -> ClipQueue -> encoding threads -> tokens -> writing threads -> commits
                 (one linear pass per video; a ring of frames)   (buffers)   (batches of one shape)     (one video by one thread
                                                                                                         at a time, clips in order)

Every queue is bounded: whoever is ahead waits, so the slowest stage is busy all the time and memory grows neither with the
length of a video nor with their number. A video that fails costs itself alone; a disk that refuses stops all of them.
"""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

import torch

from features.agenda import Agenda, Attempt
from features.clip_queue import ClipQueue, QueuedClip
from features.clips import Clip, ClipAssembler, ClipRule, expected_steps
from features.decode_protocol import DecodeSummary, FrameBatch, Prepare
from features.decode_worker import DecodeWorker
from features.durable import storage_errors
from features.encode_stage import EncodeStage, Encoder
from features.kept_threads import Task, run_in_kept_thread
from features.outcome import IN_OTHER_HANDS, ClipsEncoded, Outcome, Progress, StageTimes, Stopping, VideoStarted
from features.recipe import ExtractConfig
from features.resume import Action, Decision
from features.store import Store
from features.torch_threads import torch_threads
from features.verdicts import Dropped, Verdicts
from features.video_job import EncodedClip, VideoJob

_DECODING_ENDED = "decoding ended"
_LOOK_UP_S = 0.2
# How long threads are waited for that were told to end; what hangs in a disk or a driver is left behind.
_JOIN_S = 30.0


class Pipeline:
    """Does what was decided for one store; `run` once. `times` stands when it has ended.

    `check_space` is called before anything is written; it raises `StoreError` where the disk is nearly full. With `look_again` a
    video that another process holds is tried once more when all others are settled: its holder may be gone by then.
    """

    def __init__(
        self, store: Store, encoder: Encoder, config: ExtractConfig, check_space: Callable[[], object] = lambda: None,
        look_again: bool = True,
    ):
        self.times = StageTimes()
        self._store = store
        self._encoder = encoder
        self._config = config
        self._check_space = check_space
        self._look_again = look_again
        self._encoding = encoding = store.encoding
        self._rule = ClipRule.of(encoding)
        self._prepare = Prepare.of(encoding)
        on_gpu, on_cuda = encoder.device.type != "cpu", encoder.device.type == "cuda"
        self._batch_clips = config.resolved_batch_clips(on_gpu)
        self._num_encoders = 1 if on_gpu else config.resolved_threads()
        self._workers = [DecodeWorker(config.deadline_s) for _ in range(config.resolved_decode_workers(on_gpu))]
        # For every encoder one batch at work and one that fills up (on a GPU one more is under way), and one clip per decoder.
        num_buffers = (2 + on_gpu) * self._num_encoders * self._batch_clips + len(self._workers)
        self._queue = ClipQueue(num_buffers, self._rule.clip_frames * self._prepare.frame_bytes, pinned=on_cuda)
        # The same for tokens: a batch at work, and one that is being written.
        self._max_unwritten = (2 + on_gpu) * self._num_encoders * self._batch_clips + config.write_threads
        self._num_unwritten = 0
        self._stage = EncodeStage(encoder, self._queue, self, self._batch_clips, self._tell_clips)
        self._changed = threading.Condition()
        self._jobs: set[VideoJob] = set()
        self._to_write: deque[VideoJob] = deque()
        self._being_written: set[VideoJob] = set()
        self._writing_ends = False
        self._begins_no_more = ""
        self._events: queue.SimpleQueue[Progress | BaseException | str] = queue.SimpleQueue()
        self._stream = torch.cuda.Stream(encoder.device) if on_cuda else None

    def run(self, decisions: Iterable, stop: threading.Event | None = None) -> Iterator[Progress]:
        """Yields what happens, with one `Outcome` per decision when it is settled; each is then in the store's ledger.

        Once `stop` is set no video is begun; those whose frames are all decoded are finished, the others dropped, which an
        event tells first. Leaving the iteration drops all. Raises `StoreError` where the disk refuses, because then no other
        video can be stored either.
        """
        start_s = time.monotonic()
        self._agenda = Agenda(decisions)
        self._verdicts = Verdicts(self._store.ledger, self._agenda, self._config, self._events.put)
        num_threads = self._config.torch_threads(self._encoder.device.type != "cpu")
        with torch_threads(num_threads):
            decoders: list[Task] = []
            encoders: list[Task] = []
            writers: list[Task] = []
            self._num_decoding = len(self._workers)
            if stop is not None and stop.is_set():
                self._agenda.stop()
            try:
                for worker in self._workers:
                    decoders.append(run_in_kept_thread(partial(self._decode_all, worker)))
                for _ in range(self._num_encoders):
                    encoders.append(run_in_kept_thread(self._guarded(self._stage.run, num_threads)))
                for _ in range(self._config.write_threads):
                    writers.append(run_in_kept_thread(self._guarded(self._write_all, num_threads)))
                yield from self._until_the_end(stop)
            finally:
                self._drop_all("interrupted")
                _join(decoders)
                self._agenda.wait_until_settled(_JOIN_S)
                self._queue.close()
                _join(encoders)
                with self._changed:
                    self._writing_ends = True
                    self._changed.notify_all()
                _join(writers)
                for worker in self._workers:
                    worker.close()
                self.times += self._stage.times
                self.times.wall_s = time.monotonic() - start_s

    # The end, wanted and unwanted

    def _until_the_end(self, stop: threading.Event | None) -> Iterator[Progress]:
        grace_ends_s, decoding_ended = None, False
        while True:
            if stop is not None and stop.is_set() and grace_ends_s is None:
                grace_ends_s = time.monotonic() + self._config.stop_grace_s
                yield self._begin_to_stop()
            event = self._next_event()
            if grace_ends_s is not None and time.monotonic() > grace_ends_s:
                grace_ends_s = float("inf")
                self._drop(self._in_hand(), f"stopped, and not finished within {self._config.stop_grace_s:g} s")
            if isinstance(event, BaseException):
                raise event
            if event is _DECODING_ENDED:
                decoding_ended = True
            elif event is not None:
                yield event
            # A video's outcome comes before it counts as settled.
            if decoding_ended and self._agenda.is_settled and self._events.empty():
                return

    def _next_event(self) -> Progress | BaseException | str | None:
        try:
            return self._events.get(timeout=_LOOK_UP_S)
        except queue.Empty:
            return None

    def _begin_to_stop(self) -> Stopping:
        self._stop_agenda("stopped before it was tried again")
        in_hand = self._in_hand_at_the_end("stopped before it was begun")
        finishing, dropping = ([job for job in in_hand if job.is_decoded is decoded] for decoded in (True, False))
        self._drop(dropping, "stopped before its last frame was decoded")
        return Stopping(*(tuple(sorted(job.video.id for job in jobs)) for jobs in (finishing, dropping)))

    def _in_hand(self) -> list[VideoJob]:
        with self._changed:
            return [job for job in self._jobs if not job.failed]

    def _in_hand_at_the_end(self, reason: str) -> list[VideoJob]:
        """What is in hand, to which nothing is added from now on."""
        with self._changed:
            self._begins_no_more = self._begins_no_more or reason
            return self._in_hand()

    def _drop(self, jobs: list[VideoJob], reason: str) -> None:
        for job in jobs:
            self._fail(job, Dropped(reason))
            # Its thread takes it away when it is done with it.
            if (worker := job.worker) is not None:
                worker.interrupt()

    def _stop_agenda(self, reason: str) -> None:
        for attempt in self._agenda.stop():
            self._verdicts.tell(Outcome(attempt.decision.video.id, "dropped", reason))

    def _drop_all(self, reason: str) -> None:
        self._stop_agenda(reason)
        self._drop(self._in_hand_at_the_end(reason), reason)
        # Whoever still encodes now does it for a video that was dropped.
        self._stage.interrupt(Dropped)

    def _guarded(self, work: Callable[[], object], num_threads: int) -> Callable[[], None]:
        def run() -> None:
            try:
                # A kept thread has the number of the extraction before.
                torch.set_num_threads(num_threads)
                work()
            except BaseException as error:
                self._events.put(error)

        return run

    # Decoding

    def _decode_all(self, worker: DecodeWorker) -> None:
        try:
            while (attempt := self._agenda.next()) is not None:
                try:
                    self._begin(attempt, worker)
                except Exception as error:
                    self._verdicts.of_error(attempt, error)
        except BaseException as error:
            self._events.put(error)
        with self._changed:
            self._num_decoding -= 1
            if not self._num_decoding:
                self._events.put(_DECODING_ENDED)

    def _begin(self, attempt: Attempt, worker: DecodeWorker) -> None:
        """Settles what needs no work, decodes the rest; a job that it makes is settled by a writing thread."""
        decision = attempt.decision
        video = decision.video
        if decision.action in (Action.SKIP, Action.REFUSE):
            skipped = decision.action is Action.SKIP
            outcome = Outcome(video.id, "skipped", decision.reason or "already stored") if skipped else Outcome(video.id, "failed", decision.reason)
            return self._verdicts.settle(outcome)
        claim = self._store.claim(video.id)
        if claim is None:
            if self._look_again and not attempt.is_last_look and self._agenda.repeat(replace(attempt, is_last_look=True)):
                return
            return self._verdicts.settle(Outcome(video.id, "skipped", IN_OTHER_HANDS))
        job = VideoJob(attempt, claim, worker)
        try:
            is_overtaken = self._is_overtaken(decision)
            with self._changed:
                if self._begins_no_more:
                    raise Dropped(self._begins_no_more)
                if not is_overtaken:
                    self._jobs.add(job)
        except BaseException:
            job.close()
            raise
        if is_overtaken:
            # Its holder was done with it between the decision and the claim.
            job.close()
            return self._verdicts.settle(Outcome(video.id, "skipped", "another process stored it"))
        self._events.put(VideoStarted(video.id))
        self._queue.start_producing()
        try:
            self._decode(job, worker)
        except BaseException as error:
            self._fail(job, error)
        finally:
            job.worker = None
            self._queue.end_producing()
            with self._changed:
                is_settled = job not in self._jobs
            if is_settled and job.failed:
                # It was opened after it had failed and been closed.
                job.close()

    def _is_overtaken(self, decision: Decision) -> bool:
        """Whether the store holds something newer than what was decided upon."""
        if decision.action is Action.REPLACE and decision.replaces is None:
            return False
        with storage_errors(f"looking for video {decision.video.id!r}", self._store.path):
            commit = self._store.commit_of(decision.video.id)
        return commit is not None and commit.path != decision.replaces

    def _decode(self, job: VideoJob, worker: DecodeWorker) -> None:
        video, assembler = job.video, ClipAssembler(self._rule)
        stream = worker.stream_shared(video.file, self._prepare, self._rule.frames_held, self._config.decoder, video.fps)
        with closing(stream):
            for message in stream:
                if isinstance(message, FrameBatch):
                    if not job.is_open:
                        known = video.num_frames or message.info.num_frames_in_header
                        job.open(self._store, message, expected_steps(self._encoding, known, float(message.info.fps)))
                    for clip in assembler.push(message.frame_numbers_n, message.frames_nhw3.numpy()):
                        if not self._put(job, clip):
                            return
                    worker.release(assembler.num_released)
                else:
                    summary: DecodeSummary = message
        # Before the last clips are encoded: a refused video costs no more than it has to.
        job.check_end(summary)
        for clip in assembler.finish():
            if not self._put(job, clip):
                return
        with self._changed:
            job.num_clips = job.num_queued
            self._schedule(job)

    def _put(self, job: VideoJob, clip: Clip) -> bool:
        job.num_queued += 1
        return self._queue.put(job, job.num_queued - 1, clip)

    # From the encoder to the writers

    def reserve(self, num_clips: int, wait: bool) -> bool:
        """See `features.encode_stage.Outbox`, as the next three."""
        with self._changed:
            while self._num_unwritten + num_clips > self._max_unwritten:
                if not wait or self._writing_ends:
                    return False
                self._changed.wait()
            self._num_unwritten += num_clips
            return True

    def unreserve(self, num_clips: int) -> None:
        with self._changed:
            self._num_unwritten -= num_clips
            self._changed.notify_all()

    def deliver(self, encoded: EncodedClip) -> None:
        job = encoded.clip.job
        with self._changed:
            if job.failed:
                self.unreserve(1)
                return
            job.encoded[encoded.clip.number] = encoded
            self._schedule(job)

    def fail_batch(self, clips: list[QueuedClip], error: BaseException) -> None:
        self.unreserve(len(clips))
        for job in {clip.job for clip in clips}:
            self._fail(job, error)

    def _tell_clips(self, clips: list[QueuedClip]) -> None:
        # Of a video that was given up its outcome may be out already, after which nothing is said of it.
        for video_id, number in sorted(Counter(clip.job.video.id for clip in clips if not clip.job.failed).items()):
            self._events.put(ClipsEncoded(video_id, number))

    def _fail(self, job: VideoJob, error: BaseException) -> None:
        with self._changed:
            if job.failed or job.is_committing or job not in self._jobs:
                return
            job.error = error
            self._schedule(job)
        self._queue.drop_failed()

    # Writing

    def _schedule(self, job: VideoJob) -> None:
        """Puts the job before the writing threads where there is something to do for it and none of them has it; under the lock."""
        if job in self._jobs and job not in self._being_written and (job.failed or job.can_write):
            self._being_written.add(job)
            self._to_write.append(job)
            self._changed.notify_all()

    def _write_all(self) -> None:
        times = StageTimes()
        try:
            while True:
                start_s = time.monotonic()
                with self._changed:
                    self._changed.wait_for(lambda: self._to_write or self._writing_ends)
                    if not self._to_write:
                        return
                    job = self._to_write.popleft()
                times.write_wait_s += (taken_s := time.monotonic()) - start_s
                with torch.cuda.stream(self._stream):
                    self._write(job)
                times.write_s += time.monotonic() - taken_s
        finally:
            with self._changed:
                self.times += times

    def _write(self, job: VideoJob) -> None:
        """Writes what is there of a job; settles it where that was all, or where it has failed."""
        while True:
            with self._changed:
                if job.failed:
                    break
                if not job.can_write:
                    self._being_written.remove(job)
                    return
                # From here on it is not dropped any more: what is visible must not be called otherwise.
                job.is_committing = job.num_written == job.num_clips
            try:
                if job.is_committing:
                    job.commit(self._encoder.spec, self._encoder.device, self._encoder.dtype)
                    break
                self._check_space()
                job.write_next()
                if self._stream is not None:
                    # Before the tokens' memory is given back to the encoder's stream.
                    self._stream.synchronize()
            except BaseException as error:
                job.error = job.error or error
                self._queue.drop_failed()
                break
            with self._changed:
                del job.encoded[job.num_written]
                job.num_written += 1
                self.unreserve(1)
        with self._changed:
            self._jobs.remove(job)
            self._being_written.remove(job)
        job.close()
        with self._changed:
            self.unreserve(len(job.encoded))
            job.encoded.clear()
            times = job.result.times
            self.times += StageTimes(decode_s=times.decode_s, decode_blocked_s=times.decode_blocked_s)
        self._verdicts.of_job(job)


def _join(tasks: Iterable[Task]) -> None:
    end_s = time.monotonic() + _JOIN_S
    for task in tasks:
        task.join(max(0.0, end_s - time.monotonic()))
