"""One video after the other in this process, its decoder in a child process beside it.

An engine runs the decisions of `features.resume` and answers each with an `Outcome`; one bad video never stops the others.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator

from features.extract_video import Extracted, VideoExtractor
from features.outcome import ClipsEncoded, Outcome, Progress, VideoStarted
from features.resume import Action, Decision
from vjepa_loc.errors import StoreError, VjepaLocError


def run(
    decisions: Iterable[Decision], extractor: VideoExtractor, on_progress: Callable[[Progress], object] = lambda progress: None
) -> Iterator[Outcome]:
    """One `Outcome` per decision, in their order; each is in the store's ledger when it is yielded.

    Raises `StoreError` where the disk refuses (full, read-only), because then no other video can be stored either.
    """
    for decision in decisions:
        outcome = _attempt(decision, extractor, on_progress)
        on_progress(outcome)
        yield outcome


def _attempt(decision: Decision, extractor: VideoExtractor, on_progress: Callable[[Progress], object]) -> Outcome:
    video_id, ledger = decision.video.id, extractor.store.ledger
    if decision.action is Action.SKIP:
        outcome = Outcome(video_id, "skipped", decision.reason or "already stored")
    elif decision.action is Action.REFUSE:
        outcome = Outcome(video_id, "failed", decision.reason)
    else:
        on_progress(VideoStarted(video_id))
        try:
            outcome = _extract(decision, extractor, on_progress)
        except KeyboardInterrupt:
            # Information only, and the user wants to leave: a second refusal of the disk must not hide the first reason.
            with contextlib.suppress(StoreError):
                ledger.record(video_id, "failed", "interrupted")
            raise
        except StoreError as error:
            if error.errno is not None:
                with contextlib.suppress(StoreError):
                    ledger.record(video_id, "failed", str(error))
                raise
            outcome = Outcome(video_id, "failed", str(error))
        except VjepaLocError as error:
            outcome = Outcome(video_id, "failed", str(error))
        except Exception as error:
            # A fault of ours or of a library: the other videos must not pay for it, and the trace must not be lost.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            ledger.record(video_id, "failed", reason, traceback=traceback.format_exc())
            return Outcome(video_id, "failed", reason)
    ledger.record(video_id, outcome.status, outcome.reason, **outcome.details())
    return outcome


def _extract(decision: Decision, extractor: VideoExtractor, on_progress: Callable[[Progress], object]) -> Outcome:
    video = decision.video
    claim = extractor.store.claim(video.id)
    if claim is None:
        return Outcome(video.id, "skipped", "another process is extracting it")
    with claim:
        extracted: Extracted = extractor.extract(
            video, claim, replace=decision.action is Action.REPLACE, on_clips=lambda number: on_progress(ClipsEncoded(video.id, number))
        )
    if not extracted.stored:
        return Outcome(video.id, "skipped", "another process stored it first", extracted)
    return Outcome(video.id, "done", decision.reason, extracted)
