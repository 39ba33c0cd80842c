"""Whatever is in a file, reading it with any format ends with a dataset or with one line that speaks to the user.

Files that the formats write, and some of the tools' own, are damaged as files are: bits and lines lost, values of other kinds,
numbers without measure, nesting without end, other encodings.

`FUZZ_EXAMPLES=5000 pytest tests/contracts/test_format_fuzzing.py` looks longer, and elsewhere each time.
"""

import base64
import json
import os
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import VideoError, VjepaLocError
from vjepa_loc.events import Event
from vjepa_loc.formats import grocery, native
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

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
STRANGE = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"-1",
    b"0",
    b"-0.0",
    b"1e400",
    b"1e308",
    b"5e-324",
    b"1" + b"0" * 30,
    b"9" * 5000,
    b"0.5",
    b"true",
    b"null",
    b'""',
    b"",
    b"x",
    b"[]",
    b"{}",
    b'{"a": 1}',
    b"[1, 2]",
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xff\xfe",
    b"\x00",
    "\u00e9".encode("latin-1"),
    b"<a>",
    b"&amp;",
    b"&lol;",
    b"]]>",
    b",",
    b"\t",
    b"\n",
    b'"',
    b"1,5",
    b"00:00:01.5",
    b"../../x",
    b"\xef\xbb\xbf",
]
STRANGE_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    0.5,
    10**30,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1",
    "\x00",
    "$fps",
    "a" * 300,
    [],
    {},
    [None],
    [[]],
    {"a": {}},
    [1, 2, 3, 4],
    {"0": [0, 0, 1, 1]},
    "NaN",
]

FIELDS = [
    "id",
    "video_id",
    "label",
    "boxes",
    "score",
    "fps",
    "width",
    "file",
    "start_frame",
    "extra",
    "format",
    "data",
    "type",
    "duration",
]

OLD_TABLE = """Observation id,one,,,
,,,,
Player #1,/videos/b.mp4,,,
Time offset (s),0.0,,,
,,,,
Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status
1.5,/videos/b.mp4,2.0,32.0,s,take,,,START
1.75,/videos/b.mp4,2.0,32.0,s,take,,,STOP
0.5,/videos/b.mp4,2.0,32.0,,return,,why,POINT
"""
TABULAR = (
    "Observation id\tObservation type\tSource\tTime offset (s)\tMedia duration (s)\tFPS\tSubject\tBehavior\tModifier #1\tBehavior type"
    "\tTime\tMedia file name\tComment\n"
    "one\tMedia file(s)\tplayer #1:b.mp4;a.mp4|player #2:c.mp4\t0\t2.000;0.250|9\t32.000;32.000|25\ts\ttake\tm\tSTART\t2.05\ta.mp4\t\n"
    "one\tMedia file(s)\tplayer #1:b.mp4;a.mp4|player #2:c.mp4\t0\t2.000;0.250|9\t32.000;32.000|25\ts\ttake\tm\tSTOP\t2.2\ta.mp4\t\n"
)
AGGREGATED = (
    "Observation id;Media file;Total length;FPS;Subject;Behavior;Modifiers;Behavior type;Start (s);Stop (s);Duration (s)\n"
    "one;b.mp4;2,000;32,0;No focal subject;take;a|b;STATE;0,5;1,25;0,75\none;b.mp4;2,000;32,0;;return;;POINT;0,5;0,5;NA\n"
)
SEQUENCE = [{"frame": 2, "enabled": True, "x": 1, "y": 1, "width": 9, "height": 9, "rotation": 30, "time": 0.08, "score": 0.5}]
SEQUENCE += [
    {"frame": 7, "enabled": False, "x": 9, "y": 3, "width": 7, "height": 5, "rotation": 350, "time": 0.28, "score": 0.25}
]
REGIONS = [
    {
        "id": "r",
        "type": "videorectangle",
        "score": 0.5,
        "value": {"sequence": SEQUENCE, "labels": ["take", "return"], "framesCount": 50, "duration": 2},
    },
    {
        "id": "t",
        "type": "timelinelabels",
        "value": {"ranges": [{"start": 1, "end": 10}, {"start": 3, "end": 3}], "timelinelabels": ["take"]},
    },
    {"type": "choices", "value": {"choices": ["x"]}},
]
CONFIG = "<View><Video name='video' value='$clip' frameRate='25'/></View>"
BY_HAND = {
    "boris": [OLD_TABLE, TABULAR, AGGREGATED],
    "label_studio": [
        json.dumps(
            [
                {
                    "id": 1,
                    "data": {"video": "/data/upload/1/0123abcd-b.mp4"},
                    "annotations": [{"result": REGIONS}],
                    "predictions": [{"result": REGIONS, "score": 1}],
                }
            ]
        ),
        json.dumps({"annotation": {"result": REGIONS}, "task": {"data": {"clip": "b.mp4"}}, "project": {"label_config": CONFIG}}),
        json.dumps([{"model_version": "m", "score": 0.5, "result": REGIONS}], indent=1),
    ],
}


def make_dataset(events=()) -> Dataset:
    videos = [Video(name, None, 32.0, frames, 320, 180, split) for name, frames, split in (("b", 64, "train"), ("a", 8, "val"))]
    return Dataset(grocery.LABELS, index_videos(videos), events)


def some_events(scored: bool) -> list[Event]:
    events = [
        Event("b", "take", 0, 64, [0, 1, 5], [[0, 0, 320, 180], [0.5, 1.25, 3, 4], [1, 2, 3, 4]], id="e1"),
        Event("b", "return", 5.625, 6.25),
        Event("a", "take", 1.5, 4, [2], [[1, 2, 3, 4]], extra={"subject": "s"}),
    ]
    return [
        event.replace(score=0.5, box_scores_K=[0.25] * event.num_boxes if event.num_boxes else None) if scored else event
        for event in events
    ]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory) -> dict[str, list[bytes]]:
    """By format, the bytes of files that it reads; of a format that writes folders, of each file in them."""
    files = {name: [text.encode() for text in BY_HAND.get(name, [])] for name in FORMATS if name != "grocery"}
    for name in files:
        folder = tmp_path_factory.mktemp("whole")
        if hasattr(FORMATS[name], "write"):
            FORMATS[name].write(make_dataset(some_events(False)), folder / "truth")
        if hasattr(FORMATS[name], "read_predictions"):
            FORMATS[name].write_predictions(some_events(True), make_dataset(), folder / "predictions")
        files[name] += [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    return files


def probe(file: Path):
    return {"width": 320, "height": 180, "fps": 30000 / 1001, "num_frames": 64}


def refusing_probe(file: Path):
    raise VideoError(f"{file}: no video")


steps = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=4
)
kept_bytes = st.binary(max_size=60)


def damaged(content: bytes, changes) -> bytes:
    for kind, first, second, third in changes:
        content = damaged_once(content, kind, first, second, third)
    return content


def damaged_once(content: bytes, kind: int, first: int, second: int, third: int) -> bytes:
    here = first % (len(content) + 1)
    lines = content.split(b"\n")
    line = first % len(lines)
    strange = STRANGE[third % len(STRANGE)]
    if kind == 0:
        return content[:here]
    if kind == 1:
        return content[:here] + strange + content[here:]
    if kind == 2:
        return content[:here] + content[here + second % 40 :]
    if kind == 3:
        return b"\n".join(lines[:line] + lines[line + 1 :])
    if kind == 4:
        return b"\n".join(lines[: line + 1] + lines[line:])
    if kind == 5:
        lines[line], lines[second % len(lines)] = lines[second % len(lines)], lines[line]
        return b"\n".join(lines)
    if kind in (6, 7):
        numbers = list(NUMBER.finditer(content))
        if not numbers:
            return strange
        match = numbers[first % len(numbers)]
        return content[: match.start()] + strange + content[match.end() :]
    if kind == 8 and second % 10 == 0:
        return content.decode("utf-8", "replace").encode(("utf-16", "utf-8-sig", "utf-32", "cp500")[third % 4], "replace")
    if kind == 8 and second % 10 == 1:
        return content[:here] + (b"[", b'{"a":', b"<a>")[third % 3] * (second % 4000) + content[here:]
    return damaged_json(content, first, second, third)


def damaged_json(content: bytes, first: int, second: int, third: int) -> bytes:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content[: len(content) // 2]
    places = []

    def walk(value) -> None:
        if isinstance(value, (dict, list)):
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                walk(value[key])

    walk(document)
    if not places:
        return content + b"1"
    holder, key = places[first % len(places)]
    if second % 5 == 0:
        del holder[key]
    elif second % 5 == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif second % 5 == 2:
        # As deep as it can be, or as wide as an id that stands everywhere.
        holder[key] = {"a": holder[key]} if third % 2 else [holder[key]]
    elif second % 5 == 3:
        other, other_key = places[third % len(places)]
        holder[key] = (
            json.loads(json.dumps(other[other_key]))
            if other_key in (other if isinstance(other, dict) else range(len(other)))
            else 1
        )
    elif second % 11 == 0 and isinstance(holder, dict):
        holder[FIELDS[third % len(FIELDS)]] = holder.pop(key)
    else:
        holder[key] = STRANGE_VALUES[third % len(STRANGE_VALUES)]
    return json.dumps(document).encode()


def check_reading(read, path: Path, folder: Path) -> None:
    """`read()` gives something, or one line that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        try:
            result = read()
        except VjepaLocError as error:
            assert str(path.name) in str(error) and "\n" not in str(error)
            str(error).encode()
            return
    if isinstance(result, Dataset):
        # Names can be printed.
        "".join([*result.labels, *result.videos]).encode()
        # Whatever was read can be kept.
        native.write(result, folder / "kept")
        assert len(native.read(folder / "kept").events) == len(result.events)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "grocery"])
def test_a_damaged_file_is_read_or_refused_in_one_line(name, whole_files, tmp_path):
    module = FORMATS[name]
    dataset = make_dataset()
    path = tmp_path / "damaged-file"
    for video in ("a.mp4", "b.mp4"):
        (tmp_path / video).touch()

    @SETTINGS
    @given(st.integers(0, 10), steps, st.sampled_from([None, probe, refusing_probe]))
    def check(which, changes, chosen_probe):
        path.write_bytes(damaged(whole_files[name][which % len(whole_files[name])], changes))
        check_reading(lambda: module.read(path, chosen_probe), path, tmp_path)
        if hasattr(module, "read_predictions"):
            check_reading(lambda: module.read_predictions(path, dataset), path, tmp_path)

    check()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "grocery"])
def test_any_bytes_are_read_or_refused_in_one_line(name, tmp_path):
    path = tmp_path / "any-bytes"

    @SETTINGS
    @given(kept_bytes)
    def check(content):
        path.write_bytes(content)
        check_reading(lambda: FORMATS[name].read(path), path, tmp_path)

    check()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


HARD = [
    *(opening * 100_000 for opening in ("[", '{"a":', "<a>", '"', ",", "\n")),
    *(
        f'{{"format": "vjepa_loc", "version": 1, "labels": [], "videos": [], "events": [], "x": {nested(depth)}}}'
        for depth in (90, 110, 400, 900)
    ),
    *(f'{{"database": {{"v": {{"x": {nested(depth)}}}}}}}' for depth in (90, 400, 900)),
    *(
        f'[{{"data": {{"video": "a.mp4"}}, "annotations": [], "meta": {{"vjepa_loc": {{"extra": {{"x": {nested(depth)}}}}}}}}}]'
        for depth in (90, 400, 900)
    ),
    '{"database": {"v": {"fps": %s}}}' % ("9" * 5000),
    '{"database": {"\\ud800": {}}}',
    '{"observations": {"o": {"events": []}}, "observations": {}}',
    "<annotations>" + "<track>" * 5000,
    '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;&b;&b;">]><annotations>&d;</annotations>',
    '<?xml version="1.0" encoding="utf-99"?><annotations/>',
    "Time,Subject,Behavior,Status\n" + "1" * 200_000 + ",,a,POINT",
    "Behavior\tStart (s)\n" * 3,
]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "grocery"])
def test_what_is_deep_or_long_without_end_is_read_or_refused_in_one_line(name, tmp_path):
    path = tmp_path / "hard"
    for content in HARD:
        path.write_text(content)
        check_reading(lambda: FORMATS[name].read(path), path, tmp_path)


LINE = b"u1, 0, 0.1, 0.2, 0.5, 0.75\n['u2', 2, 0, 0, 1, 1]\n"
# One white pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAtq3xdwAAAABJRU5ErkJggg==")
odd_names = st.sampled_from(
    ["0.txt", "7.txt", "x.txt", "99999999999999999999.txt", "-1.txt", "a_3.txt", "0003.TXT", "\u0663.txt", ".1.txt"]
)


def test_a_damaged_grocery_tree_is_read_or_refused_in_one_line(tmp_path_factory):
    @SETTINGS
    @given(st.lists(st.tuples(odd_names, steps), max_size=4), steps, st.sampled_from(["1.png", "x.png", "frames.mp4", "2.jpg"]))
    def check(annotations, image_changes, image):
        root = tmp_path_factory.mktemp("grocery-tree")
        video = root / "train" / "v1"
        (video / "frames").mkdir(parents=True)
        (video / "anns").mkdir()
        (video / "frames" / "0.png").write_bytes(PNG)
        (video / "frames" / image).write_bytes(damaged(PNG, image_changes) if image.endswith("g") else b"")
        for file_name, changes in annotations:
            (video / "anns" / file_name).write_bytes(damaged(LINE, changes))
        check_reading(lambda: grocery.read(root, probe), root, root)

    check()
