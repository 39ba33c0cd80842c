import json

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.dataset_stats import dataset_stats, overlapping, split_table
from vjepa_loc.events import Event

VIDEOS = [
    Video("a", fps=10.0, num_frames=100, width=64, height=48, split="train", group="g"),
    Video("b", fps=10.0, num_frames=50, width=64, height=48, split="val"),
]
EVENTS = [
    Event("a", "take", 0, 10, np.arange(10), np.tile([0.0, 0.0, 4.0, 9.0], (10, 1))),
    Event("a", "take", 9, 20),
    Event("a", "return", 20, 30, np.array([25]), np.array([[0.0, 0.0, 10.0, 10.0]])),
    Event("b", "take", 5, 10),
]
DATASET = Dataset(("take", "return"), index_videos(VIDEOS), EVENTS)


def rows(stats, title):
    (table,) = [table for table in stats.tables if table.title == title]
    return {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}


def test_counts_by_hand():
    counts = rows(dataset_stats(DATASET), "Counts")
    assert counts["videos"] == {"train": 1, "val": 1, "all": 2}
    assert counts["seconds"] == {"train": 10.0, "val": 5.0, "all": 15.0}
    assert counts["events with boxes"] == {"train": 2, "val": 0, "all": 2}
    assert counts["events with a box on every frame"]["all"] == 1 and counts["boxes"]["all"] == 11
    labels = rows(dataset_stats(DATASET), "Events per label")
    assert labels == {"take": {"train": 2, "val": 1, "all": 3}, "return": {"train": 1, "val": 0, "all": 1}}


def test_a_dataset_without_videos_has_no_shares():
    assert rows(dataset_stats(Dataset(("take",), {})), "Overlaps of events")["all"]["share of frames with an event"] is None


def test_what_a_video_does_not_state_is_left_empty():
    counts = rows(dataset_stats(Dataset(("take",), {"a": Video("a")})), "Counts")
    assert counts["frames"] == {"(no split)": None} and counts["seconds"] == {"(no split)": None}
    assert dataset_stats(Dataset(("take",), {"a": Video("a")})).pictures == ()


def test_lengths_and_sizes_by_hand():
    stats = dataset_stats(DATASET)
    lengths = rows(stats, "Lengths of events in frames")
    assert (lengths["train"]["shortest"], lengths["train"]["median"], lengths["train"]["longest"]) == (10, 10, 11)
    assert lengths["take"]["number"] == 3
    even = Dataset(("take",), index_videos(VIDEOS), [Event("a", "take", 0, length) for length in range(5, 60, 5)])
    (lengths,) = [row for name, row in rows(dataset_stats(even), "Lengths of events in frames").items() if name == "take"]
    assert list(lengths.values()) == pytest.approx([11, 5, 10, 30, 30, 50, 55])
    sizes = rows(stats, "Sizes of boxes in pixels")
    # A box of 4 by 9 is as large as a square of 6.
    assert (sizes["all"]["number"], sizes["all"]["smallest"], sizes["all"]["largest"]) == (11, 6, 10)
    assert sizes["val"] == dict.fromkeys(sizes["val"], None) | {"number": 0}


def test_overlaps_by_hand():
    overlaps = rows(dataset_stats(DATASET), "Overlaps of events")
    # Touching ends do not overlap: the third begins where the second ends.
    assert (overlaps["train"]["overlap another"], overlaps["train"]["most at once"]) == (2, 2)
    assert overlaps["train"]["of the same label"] == 2
    assert overlaps["train"]["share of frames with an event"] == pytest.approx(0.3)
    # 0 to 40 covers all of what lies within it.
    nested = Dataset(("take",), index_videos(VIDEOS[:1]), [Event("a", "take", *span) for span in ((0, 40), (5, 10), (20, 30))])
    assert rows(dataset_stats(nested), "Overlaps of events")["train"]["share of frames with an event"] == pytest.approx(0.4)


def test_overlaps_against_every_pair():
    rng = np.random.default_rng(0)
    for _ in range(50):
        events = []
        for _ in range(int(rng.integers(1, 12))):
            start = int(rng.integers(0, 30))
            events.append(Event(str(rng.choice(["a", "b"])), "take", start, start + int(rng.integers(1, 10))))
        pairs = [
            [i != j and a.video_id == b.video_id and a.start_frame < b.end_frame and b.start_frame < a.end_frame for j, b in enumerate(events)]
            for i, a in enumerate(events)
        ]
        most = max(
            sum(b.video_id == a.video_id and b.start_frame <= a.start_frame < b.end_frame for b in events) for a in events
        )
        overlaps_N, found_most = overlapping(events)
        assert overlaps_N.tolist() == [any(row) for row in pairs] and found_most == most


def test_the_page_and_the_files(tmp_path):
    stats = dataset_stats(DATASET)
    page = stats.write(tmp_path, DATASET)
    text = page.read_text()
    assert text.count("<svg") == len(stats.pictures) == 4
    assert "http" not in text.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "stats.json").read_text())["counts"][0] == {"name": "videos", "train": 1, "val": 1, "all": 2}
    assert (tmp_path / "tables" / "events-per-label.csv").read_text() == ",train,val,all\ntake,2,1,3\nreturn,1,0,1\n"


def test_names_are_escaped(tmp_path):
    dataset = Dataset(("<b>",), {"a": Video("a", split="<i>")}, [Event("a", "<b>", 0, 1)])
    text = dataset_stats(dataset).write(tmp_path, dataset).read_text()
    assert "<b>" not in text and "<i>" not in text


def test_the_table_of_a_division():
    table = split_table(DATASET)
    assert table.rows[0] == ("videos", "1 (50%)", "1 (50%)", 2)
    assert table.rows[-1] == ("return", "1 (100%)", "0 (0%)", 1)


def test_splits_stand_in_the_usual_order_and_numbers_are_not_rounded():
    videos = {split: Video(split, split=split) for split in ("other", "test", "val", "train")}
    events = [Event("train", "a", 0, length) for length in (1, 1, 2)]
    counts, _, lengths, *_ = dataset_stats(Dataset(("a",), videos, events)).tables
    assert counts.columns == ("", "train", "val", "test", "other", "all")
    assert lengths.to_dicts()[0]["mean"] == 4 / 3


def test_long_names_leave_room_for_the_picture():
    label = "take a thing\nfrom the shelf " * 9
    stats = dataset_stats(Dataset((label,), index_videos([Video("a", split="train")]), [Event("a", label, 0, 9)]))
    assert label in stats.tables[1].rows[0] and "take a thing from the shelf…" in stats.pictures[0].svg
