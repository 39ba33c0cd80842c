"""Small token stores in memory, for tests of what reads them: the interface of `features.store`, without files.

A video's tokens are noise; a cell that lies in the box of an event carries a signal in the channel of the event's label, and
channel `LABELS` + k says nothing at all. So a head can learn it within seconds.
"""

from types import SimpleNamespace

import numpy as np
import torch

from features.quantise import channel_statistics, quantise
from features.schema import Encoding
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreError
from vjepa_loc.events import Event
from vjepa_loc.spacegrid import SpaceGrid
from vjepa_loc.timegrid import TimeGrid

LABELS = ("take", "return", "rummage")
WIDTH, HEIGHT = 320, 180
PATCH_PX = 8


def make_encoding(**changes):
    values = dict(
        family="fake", digest="0", channels=8, tubelet=2, patch_px=PATCH_PX, input_hw=(32, 32), resize_version=1, clip_frames=16,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )
    return Encoding(**(values | changes))


class MemoryVideo:
    """One video of a `MemoryStore`; `tokens_THWC` are float32 in raw units."""

    def __init__(self, video_id, tokens_THWC, frames_T_tubelet, num_frames, space_grid, clip_frames=16, damaged=False):
        self.id, self.num_frames, self.damaged = video_id, num_frames, damaged
        self.width, self.height = space_grid.width, space_grid.height
        self.space_grid, self.grid = space_grid, space_grid.grid
        self.frames = np.asarray(frames_T_tubelet, dtype=np.int32)
        self.time_grid = TimeGrid(self.frames, num_frames)
        self.num_steps = len(self.frames)
        self.levels = ("tokens", "pool1")
        self.storage = SimpleNamespace(number_format="int8", levels=self.levels, compression="none")
        clip = self.frames[:, 0] // clip_frames
        self.first_frame_seen = (clip * clip_frames).astype(np.int32)
        self.last_frame_seen = np.minimum(self.first_frame_seen + clip_frames, num_frames).astype(np.int32) - 1
        tokens_THWC = torch.as_tensor(tokens_THWC)
        mean_C, std_C = channel_statistics(tokens_THWC[:8])
        self.mean, self.std = mean_C.numpy(), std_C.numpy()
        self._codes, self._scale = (values.numpy() for values in quantise(tokens_THWC, mean_C, std_C))
        self._pool1 = tokens_THWC.mean(dim=(1, 2), keepdim=True).half().numpy()
        self.num_reads, self.announced = 0, []

    def shape(self, level="tokens"):
        return (self._pool1 if level == "pool1" else self._codes).shape

    def read_codes(self, start, stop, out=None):
        self.num_reads += 1
        return _filled(out, (self._codes[start:stop], self._scale[start:stop]))

    def read(self, level, start, stop, out=None):
        self.num_reads += 1
        if level == "pool1":
            values = self._pool1[start:stop]
        else:
            values = self._codes[start:stop] * self._scale[start:stop, ..., None].astype(np.float32) * self.std + self.mean
        return values.astype(np.float16) if out is None else _filled((out,), (values,))[0]

    def will_read(self, level, start, stop):
        self.announced.append((level, start, stop))


def _filled(out, values):
    """`out`, arrays or tensors, with the values; copies of these where there is none."""
    if out is None:
        return tuple(value.copy() for value in values)
    for array, value in zip(out, values, strict=True):
        np.copyto(np.asarray(array), value, casting="same_kind")
    return out


class MemoryStore:
    """A store of `MemoryVideo`s."""

    def __init__(self, videos, encoding=None, path="memory/features"):
        self.encoding = encoding or make_encoding()
        self.fingerprint = self.encoding.fingerprint
        self.path = path
        self._videos = {video.id: video for video in videos}

    def __contains__(self, video_id):
        return video_id in self._videos

    def video_ids(self):
        return list(self._videos)

    def video(self, video_id):
        if video_id not in self._videos:
            raise StoreError(f"video {video_id!r} is not in the store {self.path}")
        return self._videos[video_id]


def make_space_grid(input_hw=(32, 32), fit="stretch"):
    return SpaceGrid.build(fit, WIDTH, HEIGHT, *input_hw, PATCH_PX)


def make_video(video_id, events, num_frames, seed, frame_step=1, input_hw=(32, 32), fit="stretch", damaged=False):
    """Tokens of tubelet 2 that show the events (see the module's docstring)."""
    grid = make_space_grid(input_hw, fit)
    frames = np.arange(0, num_frames, frame_step)
    frames = np.append(frames, frames[-1:]) if len(frames) % 2 else frames
    frames_T2 = frames.reshape(-1, 2)
    time_grid = TimeGrid(frames_T2, num_frames)
    rng = np.random.default_rng(seed)
    tokens = rng.normal(0, 0.3, (len(frames_T2), *grid.grid, 8)).astype(np.float32)
    boxes_HW4 = grid.cell_boxes_norm_HW4 * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    centre_HW2 = (boxes_HW4[..., :2] + boxes_HW4[..., 2:]) / 2
    for event in events:
        channel = LABELS.index(event.label)
        first, stop = time_grid.steps_of_span(event.start_frame, event.end_frame)
        box = event.boxes_K4[0] if event.num_boxes else [0, 0, WIDTH, HEIGHT]
        inside = ((centre_HW2 >= box[:2]) & (centre_HW2 < box[2:])).all(-1)
        tokens[first:stop, inside, channel] += 3.0
    return MemoryVideo(video_id, tokens, frames_T2, num_frames, grid, damaged=damaged)


def make_event(video_id, label, start, end, box=(80, 45, 240, 135), boxed=True, **extra):
    """An event whose box stays where it is."""
    event = Event(video_id, label, start, end, **extra)
    first, stop = event.covered_frames()
    if not boxed:
        return event
    frames = np.arange(first, stop)
    return event.replace(box_frames_K=frames, boxes_K4=np.tile(np.asarray(box, dtype=float), (len(frames), 1)))


def random_events(video_id, num_frames, rng, num_events=4):
    """Events of 10 to 40 frames; boxes cover whole quarters of the picture."""
    events = []
    for index in range(num_events):
        length = float(rng.uniform(10, 40))
        start = float(rng.uniform(0, num_frames - length))
        x, y = rng.integers(0, 2, 2) * (WIDTH // 2, HEIGHT // 2)
        box = (x, y, x + WIDTH // 2, y + HEIGHT // 2)
        events.append(make_event(video_id, LABELS[index % len(LABELS)], start, start + length, box))
    return events


def make_split(counts, seed=0, num_frames=300, **video_options):
    """(Dataset, MemoryStore) of random videos; `counts` maps splits to numbers of videos."""
    rng = np.random.default_rng(seed)
    videos, events, stored = {}, [], []
    for split, count in counts.items():
        for index in range(count):
            video_id, length = f"{split}{index}", int(num_frames + rng.integers(0, 40))
            found = random_events(video_id, length, rng)
            videos[video_id] = Video(video_id, num_frames=length, width=WIDTH, height=HEIGHT, fps=25.0, split=split)
            events += found
            stored.append(make_video(video_id, found, length, int(rng.integers(1 << 30)), **video_options))
    return Dataset(LABELS, videos, events), MemoryStore(stored)
