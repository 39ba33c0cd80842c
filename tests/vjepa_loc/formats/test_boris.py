"""BORIS: tables of all versions and projects; pairing, several media files, what is counted; projects as BORIS takes them."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, VideoError
from vjepa_loc.events import Event
from vjepa_loc.formats import boris

REAL = Path(__file__).parents[4] / "shared" / "data" / "annotations" / "ethome_boris"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the BORIS files of shared/data are not here")

ABOUT = "Observation id,one,,\n,,,\nPlayer #1,/far/away/clip.avi,,\nTime offset (s),{offset},,\n,,,\n"
OLD = "Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status\n"
NEW = (
    "Observation id,Observation type,Source,Time offset (s),Media duration (s),FPS,Subject,Behavior,Modifier #1,Modifier #2,"
    "Behavior type,Time,Media file name,Comment\n"
)
SOURCE = "Media file(s),player #1:/x/a.mp4;/x/b.mp4|player #2:/x/c.mp4,0.000,10.000;20.000|30.000,25.000;50.000|25.000"


def read_text(tmp_path, text, probe=None, name="events.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return boris.read(tmp_path / name, probe)


def spans(dataset):
    return [(event.video_id, event.label, event.start_frame, event.end_frame) for event in dataset.events]


def old_rows(*rows, offset="0.0"):
    return (
        ABOUT.format(offset=offset)
        + OLD
        + "".join(
            f"{time},/far/away/clip.avi,60.000,30.0,{subject},{behavior},,{comment},{status}\n"
            for time, subject, behavior, comment, status in rows
        )
    )


def counts(dataset):
    return dataset.extra["reading"]["counts"]


def test_starts_and_stops_are_paired_by_subject_and_behaviour_whatever_their_order(tmp_path):
    text = old_rows(
        ("5.000", "mouse", "sniff", "", "STOP"),
        ("2.000", "mouse", "sniff", "why", "START"),
        ("3.000", "rat", "sniff", "", "START"),
        ("4.000", "mouse", "bite", "", "START"),
        ("4.500", "mouse", "bite", "", "STOP"),
        ("6.000", "rat", "sniff", "", "STOP"),
    )
    dataset = read_text(tmp_path, text)
    assert spans(dataset) == [("clip", "sniff", 60, 150), ("clip", "sniff", 90, 180), ("clip", "bite", 120, 135)]
    assert dataset.events[0].extra == {"subject": "mouse", "comment": "why"}
    assert dataset.labels == ("bite", "sniff") and dataset.videos["clip"].fps == 30 and not dataset.videos["clip"].fps_nominal


def test_what_has_no_partner_is_left_out_and_said(tmp_path):
    text = old_rows(
        ("1.0", "", "a", "", "STOP"),
        ("2.0", "", "a", "", "START"),
        ("3.0", "", "a", "", "START"),
        ("4.0", "", "a", "", "STOP"),
        ("5.0", "", "b", "", "START"),
    )
    dataset = read_text(tmp_path, text)
    assert spans(dataset) == [("clip", "a", 90, 120)]
    assert counts(dataset)["unpaired_codings_left_out"] == 3
    (note,) = dataset.extra["reading"]["notes"]
    assert "line 7: STOP of 'a' at 1 s has no START" in note and "line 8: START of 'a' at 2 s has no STOP" in note


def test_a_behaviour_may_be_called_none(tmp_path):
    dataset = read_text(tmp_path, old_rows(("1.0", "NA", "None", "", "START"), ("2.0", "", "None", "", "STOP")))
    assert spans(dataset) == [("clip", "None", 30, 60)] and dataset.events[0].extra == {}


def test_one_may_stop_where_the_next_starts(tmp_path):
    text = old_rows(
        ("1.0", "", "a", "", "START"), ("2.0", "", "a", "", "START"), ("2.0", "", "a", "", "STOP"), ("3.0", "", "a", "", "STOP")
    )
    assert spans(read_text(tmp_path, text)) == [("clip", "a", 30, 60), ("clip", "a", 60, 90)]


def test_a_point_is_the_frame_that_contains_it(tmp_path):
    dataset = read_text(tmp_path, old_rows(("1.0", "", "a", "", "POINT"), ("1.049", "", "a", "", "POINT")))
    assert spans(dataset) == [("clip", "a", 30, 31), ("clip", "a", 31, 32)]
    assert counts(dataset)["points"] == 2


def test_seconds_without_measure_are_left_out(tmp_path):
    dataset = read_text(
        tmp_path, old_rows(("1e308", "", "a", "", "POINT"), ("1", "", "a", "", "START"), ("1e308", "", "a", "", "STOP"))
    )
    assert dataset.events == () and counts(dataset)["events_left_out"] == 2


def test_the_offset_of_an_observation_is_no_time_of_its_video(tmp_path):
    assert spans(read_text(tmp_path, old_rows(("12.0", "", "a", "", "START"), ("13.0", "", "a", "", "STOP"), offset="10.0"))) == [
        ("clip", "a", 60, 90)
    ]


def test_files_played_one_after_the_other_begin_at_0_each_with_its_own_fps(tmp_path):
    rows = [
        ("one", "START", 8.0, "/x/a.mp4"),
        ("one", "STOP", 10.5, "/x/b.mp4"),
        ("one", "START", 12.0, "/x/b.mp4"),
        ("one", "STOP", 14.0, "/x/b.mp4"),
    ]
    text = NEW + "".join(f"{name},{SOURCE},rat,run,fast,far,{kind},{time},{media},\n" for name, kind, time, media in rows)
    dataset = read_text(tmp_path, text)
    assert spans(dataset) == [("a", "run", 200, 250), ("b", "run", 100, 200)]
    assert [video.fps for video in dataset.videos.values()] == [25, 50]
    assert counts(dataset)["events_cut"] == 1
    assert dataset.events[1].extra == {"subject": "rat", "modifiers": "fast|far"}


def test_aggregated_events_with_semicolons_and_decimal_commas(tmp_path):
    header = "Observation id;Media file;Total length;FPS;Subject;Behavior;Modifiers;Behavior type;"
    header += "Start (s);Stop (s);Duration (s);Comment start\n"
    rows = (
        "one;clip.mp4;60,000;25,0;No focal subject;a;m|n;STATE;1,20;2,40;1,20;x\n"
        "one;clip.mp4;60,000;25,0;;b;;POINT;0,05;0,05;NA;\n"
        "one;clip.mp4;60,000;25,0;;a;;STATE;5;NA;NA;\n"
    )
    dataset = read_text(tmp_path, header + rows)
    assert spans(dataset) == [("clip", "b", 1, 2), ("clip", "a", 30, 60)]
    assert dataset.events[1].extra == {"modifiers": "m|n", "comment": "x"}
    assert "line 4, 'stop (s)': expected seconds, got ''" in dataset.extra["reading"]["notes"][0]


def test_an_old_table_that_does_not_say_how_long_the_first_file_is(tmp_path):
    header = "Observation id\tMedia file\tTotal length\tFPS\tSubject\tBehavior\tBehavior type\tStart (s)\tStop (s)\n"
    rows = "one\tlate.mp4\t90.0\t25.0\t\ta\tSTATE\t61.0\t62.0\none\tearly.mp4\t90.0\t25.0\t\ta\tSTATE\t1.0\t2.0\n"
    dataset = read_text(tmp_path, header + rows)
    assert spans(dataset) == [("early", "a", 25, 50)]
    assert "follows media files of which nothing says how long they are" in dataset.extra["reading"]["notes"][0]
    for name in ("early.mp4", "late.mp4"):
        (tmp_path / name).touch()
    probed = read_text(tmp_path, header + rows, lambda file: {"fps": 25.0, "num_frames": 1500, "width": 8, "height": 8})
    assert spans(probed) == [("early", "a", 25, 50), ("late", "a", 25, 50)]


def test_the_probe_knows_better_than_the_table_and_ends_events_at_the_video(tmp_path):
    (tmp_path / "clip.avi").touch()
    text = old_rows(("1.0", "", "a", "", "START"), ("99.0", "", "a", "", "STOP"), ("100", "", "a", "", "POINT"))
    dataset = read_text(tmp_path, text, lambda file: {"fps": 24.0, "num_frames": 240, "width": 64, "height": 48})
    video = dataset.videos["clip"]
    assert (video.file, video.fps, video.num_frames, video.width) == (tmp_path / "clip.avi", 24, 240, 64)
    assert spans(dataset) == [("clip", "a", 24, 240)]
    assert (counts(dataset)["events_cut"], counts(dataset)["events_left_out"]) == (1, 1)

    def refuse(file):
        raise VideoError("broken")

    assert read_text(tmp_path, text, refuse).videos["clip"].fps == 30


def test_files_of_one_name_in_two_folders_are_two_videos(tmp_path):
    text = NEW + "".join(
        f"{name},Media file(s),{path},0,9.0,25.0,,a,,,{kind},{time},{path},\n"
        for name, path in (("one", "/x/a.mp4"), ("two", "/y/a.mp4"))
        for kind, time in (("START", 1), ("STOP", 2))
    )
    assert list(read_text(tmp_path, text).videos) == ["/x/a.mp4", "/y/a.mp4"]


def test_two_observations_of_a_video_add_up_and_their_events_say_whose_they_are(tmp_path):
    text = NEW + "".join(
        f"{name},Media file(s),/x/a.mp4,0,9.0,25.0,,a,,,{kind},{time},/x/a.mp4,\n"
        for name in ("one", "two")
        for kind, time in (("START", 1), ("STOP", 2))
    )
    dataset = read_text(tmp_path, text)
    assert [event.extra["observation"] for event in dataset.events] == ["one", "two"]
    assert counts(dataset)["observations_of_a_video_seen_before"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "expected a table of BORIS events with the columns 'Behavior' and 'Time'"),
        (b"PK\x03\x04", "export from BORIS as csv or tsv"),
        (b"Time,Subject,Behavior,Status\n1,\xe9,x,START\n", "line 2: expected UTF-8 text, got byte 0xe9; save the file as UTF-8"),
        (b'{"videos": []}', "expected a BORIS project with the key 'observations'; the file's keys are: 'videos'"),
        (
            b'{"observations": {"o": {"events": 3}}, "behaviors_conf": {}}',
            "observations 'o', events: expected a list, got a number",
        ),
        (
            b'{"observations": {}, "behaviors_conf": {"0": {"type": "State event"}}}',
            "behaviors_conf '0', code: expected a non-empty string",
        ),
    ],
)
def test_a_wrong_file_says_where_and_what_was_expected(tmp_path, content, message):
    (tmp_path / "wrong.csv").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        boris.read(tmp_path / "wrong.csv")
    assert re.search(r"wrong\.csv[:,] ", str(caught.value)) and message in str(caught.value)


def test_a_behaviour_that_the_ethogram_does_not_know_is_no_state_and_no_point(tmp_path):
    project = {"observations": {"o": {"events": [[1, "", "x", "", ""], [2.0]], "file": []}}, "behaviors_conf": {}}
    dataset = read_text(tmp_path, json.dumps(project))
    assert dataset.events == () and counts(dataset)["codings_left_out"] == 2
    assert "o, events[0]: behaviour: 'x' is not in behaviors_conf" in dataset.extra["reading"]["notes"][0]


def toy_dataset(tmp_path) -> Dataset:
    videos = [Video("v 1", tmp_path / "v.mp4", 25.0, 100, 64, 48, "train", "cage", "b"), Video("v2", None, 30000 / 1001)]
    events = [
        Event("v 1", "a", 0, 50),
        Event("v 1", "a", 10, 60),
        Event("v 1", "a", 50, 70),
        Event("v 1", "b", 7, 8, [7], [[0, 0, 1, 1]], id="e"),
        Event("v2", "b", 1 / 3, 12.5, extra={"subject": "rat", "modifiers": "x", "comment": "y", "other": 1}),
    ]
    return Dataset(["a", "b", "unused"], index_videos(videos), events)


def test_a_written_project_is_read_as_the_same_dataset_and_the_losses_are_counted(tmp_path):
    dataset = toy_dataset(tmp_path)
    account = boris.write(dataset, tmp_path / "p.boris")
    again = boris.read(tmp_path / "p.boris")
    assert sorted(spans(again)) == sorted(spans(dataset)) and again.labels == dataset.labels
    for name in ("fps", "num_frames", "width", "height", "split", "group", "label"):
        assert [getattr(video, name) for video in again.videos.values()] == [
            getattr(video, name) for video in dataset.videos.values()
        ]
    assert again.events_of("v2")[0].extra == {"subject": "rat", "modifiers": "x", "comment": "y"}
    assert (account.counts["boxes_of_events_left_out"], account.counts["ids_left_out"], account.counts["extras_left_out"]) == (
        1,
        1,
        1,
    )


def test_of_a_video_and_a_dataset_what_a_project_cannot_hold_is_said_and_an_assumed_fps_stays_one(tmp_path):
    extra = {"fps_nominal": True, "media_file": "/cage/v.avi", "duration_s": 4.5}
    videos = [Video("v", None, 25.0, extra=extra | {"camera": 3}), Video("w", None, 25.0)]
    events = [Event("v", "a", 1, 2)]
    dataset = Dataset(["a"], index_videos(videos), events, extra={"licence": "CC0", "reading": {"format": "cvat"}})
    account = boris.write(dataset, tmp_path / "p.boris")
    again = boris.read(tmp_path / "p.boris")
    assert again.videos["v"].extra == extra and not again.videos["w"].fps_nominal
    assert (account.counts["video_fields_left_out"], account.counts["dataset_fields_left_out"]) == (1, 1)
    assert account.to_dict()["notes"] == [
        "1 dataset fields left out: 'licence' has no place in files of this format",
        "1 video fields left out: 'camera' of 'v' has no place in a project",
    ]


def test_a_written_project_toggles_as_boris_reads_it(tmp_path):
    """BORIS: of one subject, behaviour and modifiers, in the order of the list, every second coding stops."""
    boris.write(toy_dataset(tmp_path), tmp_path / "p.boris")
    project = json.loads((tmp_path / "p.boris").read_text())
    states = {entry["code"]: entry["type"] for entry in project["behaviors_conf"].values()}
    assert set(states.values()) == {"State event"} and project["project_format_version"] == "7.0"
    codings = project["observations"]["v 1"]["events"]
    assert codings == sorted(codings, key=lambda coding: coding[0]) and all(len(coding) == 5 for coding in codings)
    running, found = defaultdict(list), []
    for time, subject, code, modifiers, _ in codings:
        running[subject, code, modifiers].append(time)
        if len(running[subject, code, modifiers]) % 2 == 0:
            found.append((code, *running[subject, code, modifiers][-2:]))
    assert sorted(found) == [("a", 0.0, 2.0), ("a", 0.4, 2.4), ("a", 2.0, 2.8), ("b", 0.28, 0.32)]
    assert {entry["name"] for entry in project["subjects_conf"].values()} == {"#2", "rat"}
    media = project["observations"]["v 1"]["media_info"]
    assert media["fps"] == {str(tmp_path / "v.mp4"): 25.0} and media["length"] == {str(tmp_path / "v.mp4"): 4.0}


def test_a_video_without_fps_cannot_be_written(tmp_path):
    with pytest.raises(DatasetError, match="p.boris: video 'v', fps: needed"):
        boris.write(Dataset([], index_videos([Video("v")])), tmp_path / "p.boris")
    assert not (tmp_path / "p.boris").exists()


@needs_real
@pytest.mark.parametrize(
    ("name", "num_events", "first"),
    [
        ("e3v813a-20210610T120637-121213_reencode.csv", 15, (17.075 * 30, 22.1 * 30)),
        ("e3v813a-20210610T120637-121213_reencode_multiple_behaviors.csv", 17, (17.075 * 30, 22.1 * 30)),
        ("test-simultaneous-events.csv", 3, (9.955 * 30, 11.256 * 30)),
        ("test-multi-behaviors.boris", 3, (9.955 * 30, 11.256 * 30)),
    ],
)
def test_real_files(name, num_events, first, tmp_path):
    dataset = boris.read(REAL / name)
    assert len(dataset.events) == num_events
    assert (dataset.events[0].start_frame, dataset.events[0].end_frame) == pytest.approx(first)
    boris.write(dataset, tmp_path / "p.boris")
    again = boris.read(tmp_path / "p.boris")
    assert spans(again) == spans(dataset) and [event.extra for event in again.events] == [event.extra for event in dataset.events]
