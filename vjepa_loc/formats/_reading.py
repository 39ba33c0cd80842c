"""What foreign formats share: asking the caller's probe, and keeping an account of what was read and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

from vjepa_loc.errors import VideoError
from vjepa_loc.formats._json_file import all_finite

_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Probed:
    """What a video file says of itself: displayed pixels, fps, frames that decode; None where unknown."""

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    num_frames: int | None = None


def ask(probe, file: Path) -> Probed:
    """`probe(file)` as a `Probed`; unknown throughout without a probe. The probe answers with an object or a dict."""
    if probe is None:
        return Probed()
    answer = probe(file)

    def value_of(name: str):
        return answer.get(name) if isinstance(answer, dict) else getattr(answer, name, None)

    whole = {name: value_of(name) for name in ("width", "height", "num_frames")}
    for name, value in whole.items():
        if value is not None and (not isinstance(value, Integral) or value <= 0):
            raise VideoError(f"{file}: expected a whole {name} above 0 from the probe, got {value!r}")
    fps = value_of("fps")
    return Probed(fps=None if fps is None else float(fps), **whole)


def ask_or_count(probe, file: Path | None, account: Account) -> Probed:
    """As `ask`, where a file was found; a video without one, or with one that cannot be used, is counted, and nothing is known of it."""
    if file is None:
        account.counts["videos_without_file"] += 1
        return Probed()
    try:
        return ask(probe, file)
    except VideoError as error:
        account.count("videos_unreadable", str(error))
        return Probed()


@dataclass
class Account:
    """Counts and remarks of one reading or writing: what was there, what was cut, what was left out and why.

    A reader puts `to_dict()` into `Dataset.extra["reading"]`; a writer returns its account.
    """

    format: str
    counts: Counter = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    _examples: dict[str, list[str]] = field(default_factory=dict)
    _with_more: set[str] = field(default_factory=set)

    def left_out(self, kind: str, reason: str) -> None:
        """Count one thing as `<kind>_left_out`, and keep the first reasons."""
        self.count(f"{kind}_left_out", reason)

    def leave_out_dataset_fields(self, extra: dict) -> None:
        """Count what a dataset says beyond its labels, videos and events, where a format has no place for it."""
        for key in extra:
            # The account of an earlier reading is about another file.
            if key != "reading":
                self.left_out("dataset_fields", f"{key!r} has no place in files of this format")

    def cut(self, kind: str, reason: str) -> None:
        """Count one thing as `<kind>_cut`, and keep the first reasons."""
        self.count(f"{kind}_cut", reason)

    def count(self, key: str, reason: str) -> None:
        """Count one thing under `key`, and keep the first reasons, each once."""
        self.counts[key] += 1
        examples = self._examples.setdefault(key, [])
        if reason not in examples:
            if len(examples) < _MOST_EXAMPLES:
                examples.append(reason)
            else:
                self._with_more.add(key)

    def remark(self, text: str) -> None:
        """Add a remark as it is."""
        self.remarks.append(text)

    def first_reason(self, key: str | None = None) -> str:
        """The first reason given for `key`, or for anything; an empty string where there is none."""
        if key is not None:
            return next(iter(self._examples.get(key, [])), "")
        return next((reasons[0] for reasons in self._examples.values()), "")

    def to_dict(self) -> dict:
        """`{"format", "counts", "notes"}`, ready for JSON: a note per kind with its first reasons."""
        notes = [
            f"{self.counts[key]} {key.replace('_', ' ')}: {'; '.join(reasons)}"
            + ("; ..." if key in self._with_more else "")
            for key, reasons in self._examples.items()
        ]
        return {"format": self.format, "counts": dict(self.counts), "notes": self.remarks + notes}


def kept_extra(entry: dict, known: Collection[str], reserved: Collection[str], account: Account, place: str) -> dict:
    """What a foreign entry says beyond its `known` keys; left out and counted where the native format could not hold it.

    That is under a `reserved` name, which is a field there, or with a number that is not finite.
    """
    extra = {key: value for key, value in entry.items() if key not in known}
    for key in [key for key, value in extra.items() if key in reserved or not all_finite(value)]:
        account.left_out("fields", f"{place}, {key!r}: {'the name of a native field' if key in reserved else 'not a finite number'}")
        del extra[key]
    return extra
