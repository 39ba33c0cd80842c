"""Clips that are wrong in ways that a stream copy can mend, or cannot."""

from collections.abc import Callable
from pathlib import Path

import av

from tests.features.conftest import write_clip


def copy_packets(source: Path, target: Path, change: Callable[[int, av.Packet], None]) -> Path:
    """Moves the packets of `source` to `target`, each after `change(number, packet)`."""
    with av.open(str(source)) as container, av.open(str(target), "w") as copy:
        stream = container.streams.video[0]
        new = copy.add_stream_from_template(stream)
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                change(number, packet)
                packet.stream = new
                copy.mux(packet)
    source.unlink()
    return target


def shifted(periods: int) -> Callable[[int, av.Packet], None]:
    """Every packet by so many frame periods of 1/25 s."""

    def change(number: int, packet: av.Packet) -> None:
        ticks = round(periods / 25 / packet.time_base)
        packet.pts += ticks
        packet.dts += ticks

    return change


def write_late(path: Path) -> Path:
    """An mp4 whose 40 frames begin 0.4 s after 0: an edit list."""
    return copy_packets(write_clip(path.with_suffix(".source.mp4"), num_frames=40), path, shifted(10))


def write_edited(path: Path) -> Path:
    """An mp4 of 40 frames whose edit list cuts the first 8 away, in the middle of a group of pictures."""
    source = write_clip(path.with_suffix(".source.mp4"), num_frames=40, options={"g": "40", "bf": "2"})
    return copy_packets(source, path, shifted(-8))


def write_jittered(path: Path) -> Path:
    """A Matroska file of 40 frames at 25 fps, one of which is stamped two periods too early."""
    source = write_clip(path.with_suffix(".source.mkv"), num_frames=40, options={"bf": "0"})

    def change(number: int, packet: av.Packet) -> None:
        packet.dts -= round(0.5 / packet.time_base)
        if number == 20:
            packet.pts -= round(0.08 / packet.time_base)

    return copy_packets(source, path, change)


def write_cut(path: Path, num_frames: int = 200) -> Path:
    """A Matroska file of which the second half of the bytes is missing: its header promises more than there is."""
    write_clip(path, num_frames=num_frames, options={"g": "10", "crf": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
