from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, index_videos
from vjepa_loc.dataset_review import ERROR, WARNING, events_beyond, review, summary_rows
from vjepa_loc.events import Event


def dataset(videos, events=(), labels=("take",)):
    return Dataset(labels, index_videos(videos), events)


def found(videos, events=(), labels=("take",)):
    return [(finding.severity, finding.kind) for finding in review(dataset(videos, events, labels))]


def boxed(start, end, boxes, video="v", frames=None, **more):
    frames = np.arange(start, end) if frames is None else np.array(frames)
    return Event(video, "take", start, end, frames, np.array(boxes, dtype=float), **more)


V = Video("v", num_frames=50, width=100, height=80)
GOOD = boxed(0, 2, [[0, 0, 10, 10], [1, 1, 11, 11]])


def test_a_good_dataset_has_no_findings():
    assert found([V], [GOOD]) == []
    # Up to one pixel beyond the edge is rounding.
    assert found([V], [boxed(0, 1, [[-1, -1, 101, 81]])]) == []


def test_one_group_in_two_splits_is_an_error():
    videos = [Video("a", split="train", group="g"), Video("b", split="val", group="g"), Video("c", split="val", group="h")]
    (finding,) = [finding for finding in review(dataset(videos)) if finding.kind != "unused label"]
    assert finding.severity == ERROR and finding.text == "group 'g' is in train ('a'), val ('b')"


def test_the_same_file_or_content_in_two_splits_is_an_error(tmp_path):
    for name, content in [("a", b"1234"), ("b", b"1234"), ("c", b"5678"), ("d", b"1")]:
        (tmp_path / name).write_bytes(content)

    def video(video_id, file, split):
        return Video(video_id, tmp_path / file, split=split)

    one_content = [video("a", "a", "train"), video("b", "b", "val"), video("c", "c", "val"), video("d", "d", "val")]
    assert found(one_content, [Event("a", "take", 0, 1)]) == [(ERROR, "one video in several splits")]
    one_file = [video("a", "a", "train"), video("b", "a", "val")]
    assert found(one_file, [Event("a", "take", 0, 1)]) == [(ERROR, "one video in several splits")]
    assert found([video("a", "a", "train"), video("b", "a", "train")], [Event("a", "take", 0, 1)]) == [
        (WARNING, "one video under several ids")
    ]


def test_labels_and_splits_that_are_not_used():
    videos = [Video("a", split="train"), Video("b", split="val"), Video("c")]
    events = [Event("a", "take", 0, 1), Event("b", "return", 0, 1)]
    kinds = found(videos, events, ("take", "return", "rummage"))
    assert kinds == [
        (WARNING, "video without a split"),
        (WARNING, "unused label"),
        (WARNING, "label without training events"),
    ]
    assert found([Video("a", label="take")]) == []


def test_an_assumed_frame_rate_is_told():
    video = Video("v", fps=25.0, extra={FPS_NOMINAL_KEY: True})
    assert found([video], [Event("v", "take", 0, 1)]) == [(WARNING, "assumed frame rate")]


def test_events_without_frames_with_gaps_and_twice():
    assert found([V], [Event("v", "take", 3.6, 4.4)]) == [(WARNING, "event that covers no frame")]
    assert found([V], [Event("v", "take", 3.6, 4.6)]) == []
    gap = boxed(0, 3, [[0, 0, 10, 10], [0, 0, 10, 10]], frames=[0, 2])
    (finding,) = review(dataset([V], [gap]))
    assert finding.text.endswith("1 of 3 frames have none, the first is 1; they count as hidden")
    # Looked at box by box: nothing grows with the frames that an event states.
    (finding,) = review(dataset([Video("v")], [boxed(0, 2**40, [[0, 0, 10, 10], [0, 0, 10, 10]], frames=[0, 1])]))
    assert f"{2**40 - 2} of {2**40} frames have none, the first is 2;" in finding.text
    (finding,) = review(dataset([V], [GOOD, GOOD.replace(id="e")]))
    assert finding.kind == "event that stands twice" and finding.text.startswith("events[1] ('e') of 'v' equals events[0]")
    assert found([V], [GOOD, boxed(0, 2, [[0, 0, 10, 10], [1, 1, 11, 12]])]) == []


@pytest.mark.parametrize(
    ("box", "severity", "kind"),
    [
        ([-20, 0, 0, 10], ERROR, "box outside the picture"),
        ([100, 0, 110, 10], ERROR, "box outside the picture"),
        ([0, 80, 10, 90], ERROR, "box outside the picture"),
        ([90, 0, 102, 10], WARNING, "box beyond the picture's edge"),
        ([0, -2, 10, 10], WARNING, "box beyond the picture's edge"),
    ],
)
def test_boxes_off_the_picture(box, severity, kind):
    assert found([V], [boxed(0, 1, [box])]) == [(severity, kind)]
    assert found([Video("v")], [boxed(0, 1, [box])]) == []


def test_a_box_that_jumps():
    jump = boxed(0, 3, [[0, 0, 10, 10], [50, 50, 60, 60], [52, 50, 62, 60]])
    (finding,) = review(dataset([V], [jump]))
    assert finding.kind == "box that jumps" and finding.text.endswith("1 frames do not touch the one before, the first on frame 1")
    # Over a gap things may move.
    assert (WARNING, "box that jumps") not in found([V], [boxed(0, 3, [[0, 0, 10, 10], [50, 50, 60, 60]], frames=[0, 2])])


def test_events_beyond_the_decoded_end():
    one = dataset([Video("v")], [Event("v", "take", 0, 10), Event("v", "take", 5, 10.5)])
    (finding,) = events_beyond(one, {"v": 10})
    assert finding.severity == ERROR and finding.text == "events[1] of 'v' ends at 10.5, the video has 10 frames"


def test_the_summary_counts_kinds_errors_first():
    videos = [Video(f"v{index}", Path("/nowhere")) for index in range(2)] + [
        Video("a", split="train", group="g"), Video("b", split="val", group="g")
    ]
    rows = summary_rows(review(dataset(videos, [Event("v0", "take", 0.6, 0.7)] * 5)), most_examples=2)
    assert rows[0][:3] == (ERROR, "group in several splits", 1)
    assert [row[2] for row in rows[1:]] == sorted((row[2] for row in rows[1:]), reverse=True)
    (gone,) = [row for row in rows if row[1] == "event that covers no frame"]
    assert gone[2] == 5 and gone[3].count("events[") == 2 and gone[3].endswith("; ...")
