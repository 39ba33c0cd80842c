"""CVAT files: tracks and attributes become events, events become tracks that CVAT shows as meant. Rules worked by hand."""

import json
import os
import tracemalloc
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, MissingFileError
from vjepa_loc.events import Event
from vjepa_loc.formats import cvat

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "annotations"


def box(frame, x1=10, y1=20, x2=30, y2=50, outside=0, inside="", **more) -> str:
    given = " ".join(f'{name}="{value}"' for name, value in more.items())
    return (
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" {given}>'
        f"{inside}</box>\n"
    )


def value(name, text) -> str:
    return f'<attribute name="{name}">{text}</attribute>'


def track(*shapes, label="cat", **more) -> str:
    given = " ".join(f'{name}="{value}"' for name, value in more.items())
    return f'<track label="{label}" {given}>\n{"".join(shapes)}</track>\n'


def declare(label="cat", **attributes) -> str:
    """`name="select"` is a changing attribute, `name="!text"` an unchanging one."""
    inside = "".join(
        f"<attribute><name>{name}</name><mutable>{kind[0] != '!'}</mutable><input_type>{kind.strip('!')}</input_type></attribute>"
        for name, kind in attributes.items()
    )
    return f"<labels><label><name>{label}</name><attributes>{inside}</attributes></label></labels>"


def task(inside="", size="<original_size><width>100</width><height>80</height></original_size>") -> str:
    return f"<meta><task>{inside}{size}</task></meta>\n"


@pytest.fixture
def read(tmp_path):
    """`read(tracks..., meta=..., probe=...)` -> the dataset of a file with them."""

    def call(*tracks, meta=task(), name="clip.xml", probe=None) -> Dataset:
        (tmp_path / name).write_text(f"<annotations>\n<version>1.1</version>\n{meta}{''.join(tracks)}</annotations>")
        return cvat.read(tmp_path / name, probe)

    return call


def spans(dataset) -> list[tuple]:
    return [(event.label, event.start_frame, event.end_frame) for event in dataset.events]


def boxes(event) -> dict[int, list[float]]:
    return dict(zip(event.box_frames_K.tolist(), event.boxes_K4.tolist(), strict=True))


def counts(dataset) -> dict[str, int]:
    return dataset.extra["reading"]["counts"]


def notes(dataset) -> str:
    return "\n".join(dataset.extra["reading"]["notes"])


def test_a_track_is_an_event_per_stretch_that_is_not_outside(read):
    shapes = [box(2), box(4, outside=1), box(7), box(8), box(9, outside=1), box(20, outside=1)]
    dataset = read(track(*shapes, id="5"))
    assert spans(dataset) == [("cat", 2, 4), ("cat", 7, 9)]
    assert [event.box_frames_K.tolist() for event in dataset.events] == [[2, 3], [7, 8]]
    assert [event.extra for event in dataset.events] == [{"track": "5"}] * 2


def test_boxes_between_listed_ones_lie_on_a_straight_line(read):
    (event,) = read(track(box(0, 10, 20, 30, 50), box(4, 14, 20, 38, 10 + 50))).events
    assert boxes(event) == {
        0: [10, 20, 30, 50], 1: [11, 20, 32, 52.5], 2: [12, 20, 34, 55], 3: [13, 20, 36, 57.5], 4: [14, 20, 38, 60]
    }


def test_a_box_moves_towards_the_outside_shape_as_cvat_shows_it(read):
    (event,) = read(track(box(0, 10), box(2, 20, outside=1))).events
    assert boxes(event) == {0: [10, 20, 30, 50], 1: [15, 20, 30, 50]}


def test_listed_boxes_hold_also_where_they_are_no_keyframes(read):
    listed = box(1, 12).replace('keyframe="1"', 'keyframe="0"')
    (event,) = read(track(box(0, 10), listed, box(2, 10))).events
    assert [edges[0] for edges in boxes(event).values()] == [10, 12, 10]


def test_a_track_without_outside_ends_after_its_last_shape_and_that_is_said(read):
    meta = task("<size>50</size>")
    dataset = read(track(box(3), box(4)), track(box(48), box(49)), meta=meta)
    assert spans(dataset) == [("cat", 3, 5), ("cat", 48, 50)]
    assert counts(dataset)["tracks_without_outside_at_the_end"] == 1
    assert "tracks that end after their last shape: 1, since no outside shape says where" in notes(dataset)


def test_shapes_are_put_in_order_and_of_two_on_a_frame_the_first_holds(read):
    attributes = [value("a", "x"), value("a", "y")]
    shapes = [box(2, 12, inside=attributes[0]), box(0, 10, inside=attributes[0]), box(1, 11, inside=attributes[1]), box(1, 77)]
    dataset = read(track(*shapes))
    assert [edges[0] for edges in boxes(dataset.events[0]).values()] == [10, 11, 12]
    assert spans(dataset)[1:] == [("cat:a=x", 0, 1), ("cat:a=y", 1, 2), ("cat:a=x", 2, 3)]
    assert counts(dataset)["shapes_left_out"] == 1 and "a second one on frame 1, line 8" in notes(dataset)


def test_frames_of_a_task_with_a_step_are_those_of_the_video(read):
    meta = task("<size>4</size><start_frame>10</start_frame><stop_frame>19</stop_frame><frame_filter>step=3</frame_filter>")
    dataset = read(track(box(10), box(13), box(16, outside=1)), track(box(16), box(19)), meta=meta)
    assert spans(dataset) == [("cat", 10, 16), ("cat", 16, 22)]
    assert [event.box_frames_K.tolist() for event in dataset.events] == [list(range(10, 16)), [16, 17, 18, 19]]
    assert "tracks_without_outside_at_the_end" not in counts(dataset)
    (video,) = dataset.videos.values()
    assert video.extra["cvat"] == {"start_frame": 10, "stop_frame": 19, "frame_step": 3}


def test_values_of_changing_attributes_are_events_with_the_boxes_of_the_track(read):
    meta = task(declare(id="!text", act="select", on="checkbox", speed="number"))
    first = value("id", "c1") + value("act", "walk") + value("on", "false") + value("speed", "1")
    shapes = [
        box(0, inside=first), box(2, inside=value("act", "run") + value("on", "true")), box(3, inside=value("speed", "2")),
        box(4, outside=1, inside=value("act", "walk")), box(6, inside=value("act", "__undefined__")), box(8, outside=1),
    ]
    dataset = read(track(*shapes), meta=meta)
    assert spans(dataset) == [
        ("cat", 0, 4), ("cat", 6, 8), ("cat:act=walk", 0, 2), ("cat:act=run", 2, 4), ("cat:on=true", 2, 4), ("cat:on=true", 6, 8)
    ]
    assert dataset.labels == ("cat", "cat:act=walk", "cat:act=run", "cat:on=true")
    assert [event.box_frames_K.tolist() for event in dataset.events[2:4]] == [[0, 1], [2, 3]]
    assert dataset.events[0].extra["attributes"] == {"id": "c1"} and "attributes" not in dataset.events[2].extra
    assert counts(dataset)["attribute_values_unset"] == 2
    assert "cat:speed is a number and makes no classes" in notes(dataset)
    assert "labels made of attributes that change from frame to frame: 3" in notes(dataset)


def test_attributes_that_no_label_declares_change_if_they_do_in_any_track(read):
    one = track(box(0, inside=value("who", "ann") + value("act", "sit")), box(1), box(2, outside=1))
    two = track(box(0, inside=value("who", "bob") + value("act", "sit")), box(1, inside=value("act", "stand")))
    dataset = read(one, two, meta="")
    assert spans(dataset) == [
        ("cat", 0, 2), ("cat:act=sit", 0, 2), ("cat", 0, 2), ("cat:act=sit", 0, 1), ("cat:act=stand", 1, 2)
    ]
    assert [dataset.events[at].extra["attributes"] for at in (0, 2)] == [{"who": "ann"}, {"who": "bob"}]


def test_attributes_declared_as_in_2018(read):
    labels = "<labels><label><name>cat</name><attributes><attribute>~select=act:sit,stand</attribute>"
    labels += "<attribute>@text=who:</attribute></attributes></label></labels>"
    dataset = read(track(box(0, inside=value("act", "sit") + value("who", "ann"))), meta=task(labels))
    assert spans(dataset) == [("cat", 0, 1), ("cat:act=sit", 0, 1)]


def test_other_shapes_count_with_the_upright_box_around_them(read):
    shapes = [
        '<polygon frame="0" outside="0" keyframe="1" points="10,20;40,25;20,60"/>',
        '<ellipse frame="1" outside="0" keyframe="1" cx="50" cy="40" rx="20" ry="10" rotation="90"/>',
        '<mask frame="2" outside="0" keyframe="1" rle="9" left="5" top="6" width="7" height="8"/>',
        box(3, 40, 30, 60, 40, rotation=90),
        '<skeleton frame="4" keyframe="1"><points label="a" outside="0" points="1,2"/><points label="b" outside="0" points="9,8"/>'
        '<points label="c" outside="1" points="70,70"/></skeleton>',
        '<skeleton frame="5" keyframe="1"><points label="a" outside="1" points="1,2"/></skeleton>',
    ]
    dataset = read(track(*shapes))
    (event,) = dataset.events
    assert (event.start_frame, event.end_frame) == (0, 5)
    expected = [[10, 20, 40, 60], [40, 20, 60, 60], [5, 6, 12, 14], [45, 25, 55, 45], [1, 2, 9, 8]]
    np.testing.assert_allclose(event.boxes_K4, expected, atol=1e-12)
    assert counts(dataset)["boxes_rotated"] == 1 and counts(dataset)["shapes_polygon_enclosed"] == 1
    corners = dict(xtl=1, ytl=3, xbl=2, ybl=9, xtr=5, ytr=4, xbr=6, ybr=8)
    given = " ".join(f'{name}{face}="{number + 10 * (face - 1)}"' for name, number in corners.items() for face in (1, 2))
    assert read(track(f'<cuboid frame="0" {given}/>')).events[0].boxes_K4.tolist() == [[1, 3, 16, 19]]


def test_boxes_are_cut_at_the_picture_and_left_out_where_nothing_remains(read):
    shapes = [box(0, -5, 70, 10, 99), box(1, 100, 0, 110, 20), box(2, 30, 20, 30, 50), box(3)]
    dataset = read(track(*shapes))
    (event,) = dataset.events
    assert (event.start_frame, event.end_frame) == (0, 4)
    assert boxes(event) == {0: [0, 70, 10, 80], 3: [10, 20, 30, 50]}
    assert counts(dataset)["boxes_cut"] == 1 and counts(dataset)["boxes_left_out"] == 2
    assert "line 4, frame 1 (line 6): no area in the picture: 100, 0, 110, 20" in notes(dataset)


def test_events_are_cut_at_the_ends_of_the_video(read, tmp_path):
    (tmp_path / "clip.mp4").touch()
    probed = {"width": 100, "height": 80, "fps": 50.0, "num_frames": 10}
    tracks = [track(box(-2), box(1), box(2, outside=1)), track(box(8), box(11)), track(box(10), box(11))]
    dataset = read(*tracks, probe=lambda file: probed)
    assert spans(dataset) == [("cat", 0, 2), ("cat", 8, 10)]
    assert [event.box_frames_K.tolist() for event in dataset.events] == [[0, 1], [8, 9]]
    assert (counts(dataset)["events_cut"], counts(dataset)["events_left_out"]) == (2, 1)
    (video,) = dataset.videos.values()
    assert (video.id, video.file, video.fps, video.num_frames) == ("clip", tmp_path / "clip.mp4", 50.0, 10)
    assert not video.fps_nominal


def test_the_picture_size_of_the_file_holds_and_another_one_of_the_video_is_said(read, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a b.mp4").touch()
    meta = task("<source>C:\\films\\a b.mp4</source>")
    dataset = read(track(box(0)), meta=meta, probe=lambda file: {"width": 200, "height": 80})
    (video,) = dataset.videos.values()
    assert (video.id, video.file.name, video.width, video.fps) == ("a b", "a b.mp4", 100, 25.0)
    assert video.extra[FPS_NOMINAL_KEY] is True
    assert "it states width 100" in notes(dataset) and "has 200" in notes(dataset)


def test_a_project_has_a_video_per_task(read):
    tasks = "".join(
        f"<task><id>{number}</id><name>t{number}</name><subset>{subset}</subset><source>v{number}.mp4</source>"
        f"<original_size><width>{number}0</width><height>90</height></original_size></task>"
        for number, subset in [(7, "Train"), (8, "Validation"), (9, "default")]
    )
    meta = f"<meta><project><name>p</name><tasks>{tasks}</tasks>{declare()}</project></meta>"
    dataset = read(track(box(0), task_id=8), track(box(1), task_id=7), track(box(2), task_id=5), meta=meta)
    assert [(video.id, video.split, video.width) for video in dataset.videos.values()] == [
        ("v7", "train", 70), ("v8", "val", 80), ("v9", None, 90)
    ]
    assert [(event.video_id, event.start_frame) for event in dataset.events] == [("v7", 1), ("v8", 0)]
    assert counts(dataset)["tracks_left_out"] == 1 and "task_id: unknown name '5', expected one of: 7, 8, 9" in notes(dataset)


def test_a_job_states_size_and_source_beside_itself(read):
    size = "<original_size><width>70</width><height>60</height></original_size>"
    dataset = read(track(box(0)), meta=f"<meta><job><id>3</id><size>9</size></job>{size}<source>s.mp4</source></meta>")
    assert [(video.id, video.width) for video in dataset.videos.values()] == [("s", 70)]


def test_a_folder_is_one_dataset_and_names_that_are_taken_are_told_apart(tmp_path):
    for folder, name in [("one", "annotations"), ("two", "annotations"), ("three", "x")]:
        (tmp_path / "in" / folder).mkdir(parents=True)
        meta = task("<source>cam.mp4</source>") if folder != "three" else task("<name>my task</name>")
        (tmp_path / "in" / folder / f"{name}.xml").write_text(f"<annotations>{meta}{track(box(0))}</annotations>")
    (tmp_path / "in" / "bare").mkdir()
    (tmp_path / "in" / "bare" / "annotations.xml").write_text(f"<annotations>{track(box(0), label='dog')}</annotations>")
    dataset = cvat.read(tmp_path / "in")
    assert list(dataset.videos) == ["bare", "cam", "my task", "cam @ two/annotations"]
    assert dataset.labels == ("dog", "cat")
    assert counts(dataset)["videos_with_a_name_that_is_taken"] == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: expected XML files of CVAT for video 1.1 in the folder, found none"):
        cvat.read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotations>\n<meta/>\n<image/></annotations>", "line 3: expected <track> of CVAT for video 1.1, got <image>"),
        (b"<annotation/>", "line 1: expected <annotations> of CVAT for video 1.1, got <annotation>"),
        (b"<annotations>\n<track", "line 2: expected CVAT XML, cannot read it as XML: unclosed token"),
        (b"PK\x03\x04...", "got a zip archive; unpack it, annotations.xml is inside"),
        (b'<?xml version="1.0" encoding="klingon"?><annotations/>', "cannot read it as XML: unknown encoding"),
        (b"<annotations>\n<track/></annotations>", "line 2, <track>: expected a label, got None"),
        (b"<annotations>" + b" " * 300 + b"<track/></annotations>", "line 1, column 313, <track>: expected a label"),
        (b"<annotations>" + b" " * 300 + b"<track", "line 1, column 313: expected CVAT XML, cannot read it as XML"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "file.xml").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        cvat.read(tmp_path / "file.xml")
    assert message in str(caught.value) and str(tmp_path / "file.xml") in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (box("1.5"), "line 4, <box>: frame: expected a whole number, got '1.5'"),
        (box("1_0"), "line 4, <box>: frame: expected a whole number, got '1_0'"),
        (box(0, x2="\u0663"), "line 4, <box>: xbr: expected a finite number, got '\u0663'"),
        (box(10**9), "line 4, <box>: frame: expected a number below 10000000"),
        (box(0, x2="wide"), "line 4, <box>: xbr: expected a finite number, got 'wide'"),
        (box(0, x2="nan"), "line 4, <box>: xbr: expected a finite number, got 'nan'"),
        (box(0).replace("ytl", "y"), "line 4, <box>: ytl: missing"),
        (box(0, outside="no"), "line 4, <box>: outside: expected 0 or 1, got 'no'"),
        ('<polygon frame="0" points="1,2;3"/>', "line 4, <polygon>: points: expected 'x,y;x,y;...', got '1,2;3'"),
        (box(0, inside="<attribute>x</attribute>"), "line 4, <attribute>: name: expected the name of an attribute"),
        (box(0) + box(9_000_000), "expected at most 5000000 boxes between those that are listed"),
        (box(0, inside=value("vjepa_loc", "{")), "line 3, attribute vjepa_loc: expected JSON as `convert` writes it"),
        (box(0, inside=value("vjepa_loc", '{"start": "x", "first": 0}')), "start_frame: expected a number, got 'x'"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_what_was_expected(read, wrong, message):
    with pytest.raises(DatasetError) as caught:
        read(f"<track label='cat'>\n{wrong}</track>", meta="")
    assert message in str(caught.value) and "clip.xml" in str(caught.value)


@pytest.mark.parametrize("inside", ['<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;">', '<!ENTITY a SYSTEM "file:///etc/passwd">'])
def test_entities_are_refused_before_they_are_expanded(tmp_path, inside):
    (tmp_path / "bomb.xml").write_text(f"<!DOCTYPE annotations [{inside}]><annotations><track label='&a;'/></annotations>")
    with pytest.raises(DatasetError, match="bomb.xml, line 1: expected no DOCTYPE, as CVAT writes none"):
        cvat.read(tmp_path / "bomb.xml")


def test_memory_grows_with_the_shapes_and_not_with_the_text(tmp_path):
    shape = box(0, inside=value("act", "walking") * 9)
    text = "".join(track(*(shape.replace('"0"', f'"{frame}"', 1) for frame in range(500))) for _ in range(8))
    (tmp_path / "big.xml").write_text(f"<annotations>{text}</annotations>")
    cvat.read(tmp_path / "big.xml")
    tracemalloc.start()
    dataset = cvat.read(tmp_path / "big.xml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts(dataset)["shapes"] == 4000
    assert peak < 0.75 * len(text), (peak, len(text))


def written_dataset() -> Dataset:
    videos = [
        Video("b/2", Path("/films/b.mp4"), 29.97, 40, 100, 80, "train", "shop", "cat", {"note": [1, None]}),
        Video("a", None, None, None, None, None, None),
        Video("A", None, 25.0, 12, 64, 64, "Odd name"),
    ]
    line = [[10 + frame, 20.25, 30 + frame, 50] for frame in range(5)]
    events = [
        Event("b/2", "cat", 3.25, 9.5, [4, 5, 7, 8], line[:4], [0.5, 0.25, 0.25, 1.0], 0.875, "e1", {"why": "<&>\r\n"}),
        Event("b/2", "cat:act=sit & 'stay'", 35, 40, range(35, 40), line),
        Event("b/2", "cat", 5.625, 6.25, score=0.5),
        Event("A", "cat", 0, 12),
        Event("a", "cat", 2, 6, [2, 3, 4], [[-5, -5, 200, 1 / 3]] * 3),
        Event("a", "cat", 2, 6),
    ]
    return Dataset(("unused", "cat", "cat:act=sit & 'stay'"), index_videos(videos), events)


def assert_same_events(found, expected, atol=0.0):
    for one, other in zip(found, expected, strict=True):
        for name in ("video_id", "label", "start_frame", "end_frame", "score", "id", "extra"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.box_frames_K, other.box_frames_K)
        np.testing.assert_allclose(one.boxes_K4, other.boxes_K4, rtol=0, atol=atol)
        np.testing.assert_array_equal(one.box_scores_K, other.box_scores_K)


def test_what_is_written_is_read_again_to_the_bit(tmp_path):
    dataset = written_dataset()
    account = cvat.write(dataset, tmp_path / "out")
    assert account.counts == {
        "videos": 3, "events": 6, "boxes": 12, "events_shown_as_the_whole_picture": 3, "events_shown_on_whole_frames": 2
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000-b%2F2.xml", "00002-A.xml", "a.xml"]
    again = cvat.read(tmp_path / "out")
    assert again.labels == dataset.labels and again.videos == dataset.videos and list(again.videos) == list(dataset.videos)
    for video_id in dataset.videos:
        assert_same_events(again.events_of(video_id), dataset.events_of(video_id))


def cvat_shows(path: Path) -> list[dict[int, list[float]]]:
    """Per track the boxes that CVAT shows, frame by frame: straight lines between keyframes, the last held to the end."""
    root = ET.parse(path).getroot()
    size = root.findtext("meta/task/size")
    shown = []
    for element in root.iter("track"):
        frames = {}
        keys = [(int(one.get("frame")), one.get("outside") == "1", [float(one.get(name)) for name in ("xtl", "ytl", "xbr", "ybr")])
                for one in element]
        assert keys and all(one.get("keyframe") == "1" and one.get("occluded") == "0" for one in element)
        # CVAT takes the unchanging attributes of the last keyframe for those of the track.
        assert element[-1].find("attribute[@name='vjepa_loc']") is not None
        assert not size or all(0 <= frame < int(size) for frame, _, _ in keys)
        for (frame, outside, edges), (stop, _, target) in zip(keys, [*keys[1:], (int(size or 100), True, None)], strict=True):
            for at in range(frame, stop):
                part = (at - frame) / (stop - frame) if target else 0.0
                if not outside:
                    frames[at] = [a + (b - a) * part for a, b in zip(edges, target or edges, strict=True)]
        shown.append(frames)
    return shown


def test_cvat_shows_each_event_on_its_frames(tmp_path):
    dataset = written_dataset()
    cvat.write(dataset, tmp_path / "out")
    first, second, third = cvat_shows(tmp_path / "out" / "00000-b%2F2.xml")
    assert first == boxes(dataset.events[0]) and second == boxes(dataset.events[1])
    assert third == {5: [0, 0, 100, 80]}
    (whole,) = cvat_shows(tmp_path / "out" / "00002-A.xml")
    assert whole == {frame: [0, 0, 64, 64] for frame in range(12)}
    assert cvat_shows(tmp_path / "out" / "a.xml") == [boxes(dataset.events[4]), {frame: [0, 0, 1, 1] for frame in range(2, 6)}]


def test_frames_on_which_nothing_changes_need_no_keyframe(tmp_path):
    still = Event("a", "cat", 0, 9, range(9), [[1, 1, 5, 5]] * 4 + [[2, 1, 5, 5]] * 5)
    cvat.write(Dataset(("cat",), {"a": Video("a", num_frames=20)}, [still]), tmp_path / "a.xml")
    frames = [int(one.get("frame")) for one in ET.parse(tmp_path / "a.xml").getroot().iter("box")]
    assert frames == [0, 3, 4, 8, 9]
    assert_same_events(cvat.read(tmp_path / "a.xml").events, [still])


def after_cvat(path: Path, change=lambda text: text) -> str:
    """What CVAT exports of a file that it imported: nothing of ours in the meta data, two decimals; then `change`."""
    root = ET.parse(path).getroot()
    meta = root.find("meta")
    meta.remove(meta.find("vjepa_loc"))
    for one in root.iter("box"):
        for name in ("xtl", "ytl", "xbr", "ybr"):
            one.set(name, f"{float(one.get(name)):.2f}")
    return change(ET.tostring(root, "unicode"))


def test_events_survive_a_visit_to_cvat(tmp_path):
    dataset = written_dataset()
    cvat.write(dataset, tmp_path / "out")
    (tmp_path / "b.xml").write_text(after_cvat(tmp_path / "out" / "00000-b%2F2.xml"))
    again = cvat.read(tmp_path / "b.xml")
    assert list(again.videos) == ["b"] and again.videos["b"].split == "train"
    expected = [event.replace(video_id="b") for event in dataset.events_of("b/2")]
    assert_same_events(again.events, expected, atol=0.005)


def test_what_was_changed_in_cvat_holds(tmp_path):
    cvat.write(written_dataset(), tmp_path / "out")
    text = after_cvat(tmp_path / "out" / "00000-b%2F2.xml")
    later = text.replace('<box frame="4"', '<box frame="3"').replace('xbr="100.00"', 'xbr="90.00"')
    (tmp_path / "b.xml").write_text(later)
    first, *_, third = cvat.read(tmp_path / "b.xml").events_of("b")
    assert (first.start_frame, first.end_frame, first.id) == (3, 9.5, "e1")
    assert boxes(third) == {5: [0, 0, 90, 80]}


def test_attributes_added_to_written_tracks_are_events_too(tmp_path):
    cvat.write(Dataset(("cat",), {"a": Video("a")}, [Event("a", "cat", 2.5, 6, [3, 4], [[1, 1, 9, 9]] * 2)]), tmp_path / "a.xml")
    text = (tmp_path / "a.xml").read_text().replace("<attributes>", "<attributes><attribute><name>mood</name><mutable>True</mutable>"
                                                    "<input_type>select</input_type></attribute>", 1)
    at = text.index('<box frame="4"')
    text = text[:at] + text[at:].replace("/>", ">" + value("mood", "calm") + "</box>", 1)
    (tmp_path / "a.xml").write_text(text)
    assert spans(cvat.read(tmp_path / "a.xml")) == [("cat", 2.5, 6), ("cat:mood=calm", 4, 5)]


def test_a_folder_is_replaced_only_where_all_of_it_was_written_here(tmp_path):
    dataset = written_dataset()
    cvat.write(dataset, tmp_path / "out")
    cvat.write(Dataset(("cat",), {"z": Video("z")}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["z.xml"]
    (tmp_path / "out" / "mine.xml").write_text("<annotations/>")
    with pytest.raises(DatasetError, match="out: the folder holds 'mine.xml', which was not written here"):
        cvat.write(dataset, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.xml", "out", "z.xml"]
    with pytest.raises(DatasetError, match="expected a folder for 3 videos, got the name of one XML file"):
        cvat.write(dataset, tmp_path / "out.xml")
    (tmp_path / "taken").touch()
    with pytest.raises(DatasetError, match="taken: expected the name of a folder"):
        cvat.write(dataset, tmp_path / "taken")


def small_dataset(video_id) -> Dataset:
    return Dataset(["cat"], index_videos([Video(video_id, None, 25.0, 40, 100, 80)]), [Event(video_id, "cat", 1, 2)])


def test_writing_holds_one_file_at_a_time(tmp_path):
    videos = index_videos(Video(f"v{number}", None, 25.0) for number in range(40))
    dataset = Dataset([f"label {number}" for number in range(300)], videos, [])
    tracemalloc.start()
    try:
        cvat.write(dataset, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) / 4


def test_the_folder_behind_a_link_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "link").symlink_to("out")
    for video_id in "ab":
        cvat.write(small_dataset(video_id), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and sorted(os.listdir(tmp_path)) == ["link", "out"]
    assert os.listdir(tmp_path / "out") == ["b.xml"]


def test_the_folder_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="^.: the folder is replaced as a whole, and this is the one that you are in"):
        cvat.write(small_dataset("a"), ".")


def test_a_folder_that_cannot_be_replaced_is_there_as_before(tmp_path, monkeypatch):
    out = tmp_path / "out"
    cvat.write(small_dataset("a"), out)
    rename = os.replace

    def no_second_time(source, target):
        if Path(target) == out and "b.xml" in os.listdir(source):
            raise OSError(5, "Input/output error", source)
        rename(source, target)

    monkeypatch.setattr(os, "replace", no_second_time)
    with pytest.raises(OSError, match="Input/output error") as caught:
        cvat.write(small_dataset("b"), out)
    assert caught.value.filename == str(out)
    assert os.listdir(tmp_path) == ["out"] and os.listdir(out) == ["a.xml"]


def test_files_are_found_whatever_the_case_of_their_names(tmp_path):
    for name, video_id in (("a.xml", "a"), ("B.XML", "b")):
        cvat.write(small_dataset(video_id), tmp_path / "in" / name)
    assert set(cvat.read(tmp_path / "in").videos) == {"a", "b"}


def test_what_is_left_out_of_predictions_is_said(tmp_path):
    dataset = small_dataset("a")
    cvat.write_predictions([Event("a", "cat", 1, 3, score=0.5)], dataset, tmp_path / "p.xml")
    text = (tmp_path / "p.xml").read_text()
    (tmp_path / "p.xml").write_text(text.replace("</annotations>", "<track id='9' label='cat'/></annotations>"))
    with pytest.warns(UserWarning, match="p.xml: .*1 tracks left out: .*it has no shapes"):
        assert len(cvat.read_predictions(tmp_path / "p.xml", dataset)) == 1


def test_names_without_a_form_in_xml_are_refused_as_labels_and_kept_as_ids(tmp_path):
    with pytest.raises(DatasetError, match="label: XML has no form for the character '.x01'"):
        cvat.write(Dataset(("a\x01",), {"v": Video("v")}), tmp_path / "out")
    video = Video("v\x01\ud800<", split="\x02")
    cvat.write(Dataset(("a\r\n\t <",), {video.id: video}, [Event(video.id, "a\r\n\t <", 0, 1)]), tmp_path / "out")
    again = cvat.read(tmp_path / "out")
    assert list(again.videos.values()) == [video] and again.labels == ("a\r\n\t <",)


def test_predictions_need_a_score_and_known_videos(tmp_path):
    dataset = written_dataset()
    scored = [event.replace(score=0.5, box_scores_K=None) for event in dataset.events]
    cvat.write_predictions(scored, dataset, tmp_path / "p")
    found = cvat.read_predictions(tmp_path / "p", dataset)
    assert_same_events(found, sorted(scored, key=lambda event: list(dataset.videos).index(event.video_id)))
    with pytest.raises(DatasetError, match=r"events\[0\], score: expected a number, got none"):
        cvat.write(dataset.__class__(dataset.labels, dataset.videos, dataset.events[3:]), tmp_path / "q")
        cvat.read_predictions(tmp_path / "q", dataset)
    with pytest.raises(DatasetError, match="video 'b/2': unknown name 'b/2'"):
        cvat.read_predictions(tmp_path / "p", Dataset(dataset.labels, {"x": Video("x")}))
    with pytest.raises(MissingFileError, match="gone"):
        cvat.read_predictions(tmp_path / "gone", dataset)


@pytest.mark.skipif(not (REAL / "jaad_cvat").is_dir(), reason="the shared real files are not here")
def test_real_files():
    jaad = cvat.read(REAL / "jaad_cvat")
    assert list(jaad.videos) == ["video_0001", "video_0005"]
    assert counts(jaad)["tracks"] == 12 and counts(jaad)["shapes"] == 2278
    # Counted in the text of the files: 60 and 213 shapes with look=looking, 205 and 437 with reaction=clear_path.
    boxes_of = {label: sum(event.num_boxes for event in jaad.events if event.label == label) for label in jaad.labels}
    assert boxes_of["pedestrian:look=looking"] == 273 and boxes_of["pedestrian:reaction=clear_path"] == 642
    assert boxes_of["pedestrian"] + boxes_of["ped"] == 2278 and "pedestrian:nod=__undefined__" not in boxes_of
    kabr = cvat.read(REAL / "kabr_cvat" / "DJI_tracks.xml")
    assert spans(kabr) == [("Grevy", 0, 21)] * 2 and kabr.events[0].boxes_K4[20].tolist() == [2013, 1882, 2135, 1977]
    datumaro = REAL / "datumaro_formats" / "tests" / "assets" / "cvat_dataset"
    assert ("II", 10, 13) in spans(cvat.read(datumaro / "for_video"))
    with pytest.raises(DatasetError, match="export the task again as 'CVAT for video 1.1'"):
        cvat.read(datumaro / "for_images")


def test_an_export_of_a_task_states_its_labels_for_cvat(tmp_path):
    cvat.write(Dataset(("cat",), {"a": Video("a", Path("/films/a.mp4"), 25.0, 9, 20, 10, "val")}), tmp_path / "a.xml")
    meta = ET.parse(tmp_path / "a.xml").getroot().find("meta/task")
    stated = {name: meta.findtext(name) for name in ("size", "start_frame", "stop_frame", "frame_filter", "source", "subset", "mode")}
    assert stated == {
        "size": "9", "start_frame": "0", "stop_frame": "8", "frame_filter": "", "source": "a.mp4", "subset": "val",
        "mode": "interpolation",
    }
    attributes = [(one.findtext("name"), one.findtext("mutable")) for one in meta.iter("attribute")]
    assert attributes == [("vjepa_loc", "False"), ("box_score", "True")]
    assert json.loads(ET.parse(tmp_path / "a.xml").getroot().findtext("meta/vjepa_loc"))["file"] == "/films/a.mp4"
