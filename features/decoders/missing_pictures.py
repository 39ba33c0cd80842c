"""Pictures that a decoder leaves out without an error: packets whose time is never shown.

FFmpeg drops an HEVC or H.264 picture whose header is broken, logs it, and returns success. Where every packet holds one picture,
the packets' own times tell: one that no picture carries is missing, unless a picture stands so near that it holds this packet's
half of it (fields), or none came before it (pictures that lean on a part that was cut away).
"""

from array import array
from bisect import bisect_left
from collections import Counter

# Codecs whose packets hold a shown picture each; VP8 and AV1 have hidden ones, MPEG-4 has empty ones.
PICTURE_PER_PACKET = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video"})
NEAR_PERIODS = 0.75


class MissingPictures:
    """Told of every packet and of every picture, in ticks. Holds 8 bytes per picture."""

    def __init__(self, codec: str):
        self._watches = codec in PICTURE_PER_PACKET
        self._unshown: Counter[int] = Counter()
        self._shown = array("q")

    def packet(self, ticks: int | None) -> None:
        """A packet goes to the decoder; not one that the container marks as not to be shown."""
        if self._watches and ticks is not None:
            self._unshown[ticks] += 1

    def picture(self, ticks: int | None) -> None:
        """The decoder gave a picture."""
        if self._watches and ticks is not None:
            self._shown.append(ticks)
            self.accounted(ticks)

    def accounted(self, ticks: int | None) -> None:
        """A packet needs no picture: the decoder gave one, or reported its error."""
        if ticks is not None and ticks in self._unshown:
            self._unshown[ticks] -= 1
            if not self._unshown[ticks]:
                del self._unshown[ticks]

    def ticks(self, period_ticks: float) -> list[int]:
        """When pictures are missing, in order; `period_ticks` is the usual distance of pictures."""
        if not self._unshown or not self._shown:
            return []
        shown = sorted(self._shown)

        def nearest(ticks: int) -> int:
            place = bisect_left(shown, ticks)
            return min(abs(ticks - near) for near in shown[max(place - 1, 0) : place + 1])

        first = self._shown[0]
        return sorted(ticks for ticks in self._unshown if ticks > first and nearest(ticks) >= NEAR_PERIODS * period_ticks)
