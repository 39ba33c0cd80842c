"""What any format writes it reads as the same events, whatever the dataset; and writes and reads the same again.

`FUZZ_EXAMPLES=5000 pytest tests/contracts/test_format_round_trips.py` looks longer, and elsewhere each time.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import VjepaLocError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin, plugin_names

PACKAGE = "vjepa_loc.formats"
FORMATS = {name: load_plugin(PACKAGE, name, "format") for name in plugin_names(PACKAGE)}
LONGER = os.environ.get("FUZZ_EXAMPLES")
SETTINGS = settings(
    max_examples=int(LONGER or 100),
    derandomize=not LONGER,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
rates = st.sampled_from([10.0, 24.0, 25.0, 29.97, 30000 / 1001, 32.0, 50.0, 7.3])
quarters = st.integers(0, 400).map(lambda number: number / 4)


@st.composite
def datasets(draw) -> Dataset:
    labels = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    videos, events = [], []
    for video_id in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        video = Video(video_id, None, draw(rates), 100, 320, 240, draw(st.sampled_from([None, "train", "val", "a b"])))
        videos.append(video)
        for _ in range(draw(st.integers(0, 4))):
            start, end = sorted(draw(st.tuples(quarters, quarters)))
            fine = draw(st.sampled_from([0.0, 0.0, 1 / 3, 1e-4]))
            start, end = min(start + fine, 99.0), min(end + 0.25 + fine, 100.0)
            assume(start < end)
            event = Event(video_id, draw(st.sampled_from(labels)), start, end)
            covered = range(*event.covered_frames())
            frames = sorted(draw(st.sets(st.sampled_from(covered), max_size=6))) if covered and draw(st.booleans()) else []
            corners = [[draw(quarters), draw(quarters)] for _ in frames]
            boxes = [[x, y, x + draw(quarters) + 0.25, y + draw(quarters) + 0.3] for x, y in corners]
            events.append(
                event.replace(box_frames_K=np.array(frames, dtype=int), boxes_K4=np.array(boxes).reshape(-1, 4))
                if frames
                else event
            )
    return Dataset(labels, index_videos(videos), events)


def key(event: Event) -> tuple:
    return (event.start_frame, event.end_frame, event.label, event.num_boxes, *event.boxes_K4.reshape(-1).tolist())


def by_time(dataset: Dataset, video_id: str) -> list[Event]:
    return sorted(
        dataset.events_of(video_id), key=lambda event: (round(event.start_frame, 6), round(event.end_frame, 6), event.label)
    )


@pytest.mark.parametrize("name", [name for name in FORMATS if hasattr(FORMATS[name], "write")])
def test_what_is_written_is_read_as_the_same_events_again_and_again(name, tmp_path):
    module = FORMATS[name]

    @SETTINGS
    @given(datasets())
    def check(dataset):
        try:
            module.write(dataset, tmp_path / "first")
        except VjepaLocError:
            # A name that the format's files cannot hold.
            assume(False)
        again = module.read(tmp_path / "first")
        assert set(again.videos) == set(dataset.videos)
        holds_boxes = any(event.num_boxes for event in again.events)
        for video in dataset.videos.values():
            assert again.videos[video.id].fps == video.fps and again.videos[video.id].split == video.split
            for before, after in zip(by_time(dataset, video.id), by_time(again, video.id), strict=True):
                assert before.label == after.label
                np.testing.assert_allclose(
                    [after.start_frame, after.end_frame], [before.start_frame, before.end_frame], rtol=0, atol=1e-9
                )
        for video_id in dataset.videos if holds_boxes else ():
            before, after = (sorted(one.events_of(video_id), key=key) for one in (dataset, again))
            assert [event.box_frames_K.tolist() for event in before] == [event.box_frames_K.tolist() for event in after]
            for one, other in zip(before, after, strict=True):
                np.testing.assert_allclose(one.boxes_K4, other.boxes_K4, rtol=0, atol=1e-9)
        module.write(again, tmp_path / "second")
        once_more = module.read(tmp_path / "second")
        for video_id in dataset.videos:
            spans = [
                sorted((event.start_frame, event.end_frame, event.label) for event in one.events_of(video_id))
                for one in (again, once_more)
            ]
            assert spans[0] == spans[1]

    check()
