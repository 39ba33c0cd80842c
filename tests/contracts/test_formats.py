"""What every format in `vjepa_loc/formats/` promises, whatever formats there are.

A format with `write` gives back what it wrote: ids, order, labels, splits and intervals. One with `write_predictions`
writes for every video, and with `read_predictions` gives the events back. None leaves half a file or changes a dataset.
Foreign formats keep an account: of what they read in `extra["reading"]`, of what they wrote as the answer.
"""

import inspect
import os

import pytest

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import MissingFileError, VjepaLocError
from vjepa_loc.events import Event
from vjepa_loc.formats import grocery
from vjepa_loc.formats._reading import Account
from vjepa_loc.plugins import load_plugin, plugin_names

PACKAGE = "vjepa_loc.formats"
LABELS = grocery.LABELS
NAMES = plugin_names(PACKAGE)
# Times of this fps are exact in seconds, so that intervals can be compared exactly.
FPS = 32.0


def formats_with(function_name: str) -> list[str]:
    return [name for name in NAMES if hasattr(load_plugin(PACKAGE, name, "format"), function_name)]


@pytest.fixture(params=NAMES)
def format_module(request):
    return load_plugin(PACKAGE, request.param, "format")


def make_dataset(folder, events=()) -> Dataset:
    videos = [
        Video(video_id, folder / f"{video_id}.mp4", FPS, num_frames, 320, 180, split)
        for video_id, num_frames, split in [("b", 64, "train"), ("a", 8, "val"), ("no-events", 5, "test")]
    ]
    return Dataset(LABELS, index_videos(videos), events)


def truth() -> list[Event]:
    """A whole video, one frame, an interval between two frames' middles, two alike, one up to the end."""
    return [
        Event("b", "take", 0, 64, [0, 63], [[0, 0, 320, 180], [0.5, 1.25, 3, 4]]),
        Event("b", "return", 5, 6),
        Event("b", "rummage", 5.625, 6.25),
        Event("a", "take", 1.5, 4, [2], [[1, 2, 3, 4]]),
        Event("a", "take", 1.5, 4),
        Event("a", "return", 7.5, 8),
    ]


def predictions() -> list[Event]:
    return [event.replace(score=0.5 + index / 16) for index, event in enumerate(truth())]


def spans(events) -> list[tuple]:
    return [(event.video_id, event.label, event.start_frame, event.end_frame, event.score) for event in events]


def test_the_native_format_is_there():
    assert "native" in NAMES


def test_read_takes_a_path_and_a_probe(format_module):
    parameters = inspect.signature(format_module.read).parameters
    assert list(parameters)[:2] == ["path", "probe"] and parameters["probe"].default is None


def test_public_functions_are_documented(format_module):
    assert format_module.__doc__
    for name in ("read", "write", "read_predictions", "write_predictions"):
        assert inspect.getdoc(getattr(format_module, name, format_module)), f"{name} has no docstring"


def test_a_missing_source_is_one_line_that_names_it(format_module, tmp_path):
    with pytest.raises(MissingFileError, match="not_there") as caught:
        format_module.read(tmp_path / "not_there")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x01", b"{}", b"[1, 2]", b"version https://git-lfs"])
def test_a_file_of_another_kind_is_one_line_that_names_it(format_module, tmp_path, content):
    (tmp_path / "strange").write_bytes(content)
    with pytest.raises(VjepaLocError, match="strange") as caught:
        format_module.read(tmp_path / "strange")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", formats_with("write"))
def test_what_is_written_is_read_again(name, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    dataset = make_dataset(tmp_path, truth())
    module.write(dataset, tmp_path / "out" / "file")
    module.write(dataset, tmp_path / "out" / "file")
    assert os.listdir(tmp_path / "out") == ["file"]
    again = module.read(tmp_path / "out" / "file")
    assert sorted(again.labels) == sorted(dataset.labels)
    assert list(again.videos) == list(dataset.videos)
    for video in again.videos.values():
        assert (video.fps, video.split) == (FPS, dataset.videos[video.id].split)
        assert spans(again.events_of(video.id)) == spans(dataset.events_of(video.id))


@pytest.mark.parametrize("name", sorted(set(formats_with("write")) - {"native"}))
def test_foreign_formats_keep_an_account(name, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    account = module.write(make_dataset(tmp_path, truth()), tmp_path / "file")
    assert isinstance(account, Account) and account.format == name
    assert account.counts["videos"] == 3 and account.counts["events"] == 6
    reading = module.read(tmp_path / "file").extra["reading"]
    assert reading["format"] == name and reading["counts"]["videos"] == 3 and reading["counts"]["events"] == 6


@pytest.mark.parametrize("name", sorted(set(formats_with("write")) - {"native"}))
def test_what_a_dataset_says_of_itself_is_kept_or_counted(name, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    dataset = make_dataset(tmp_path, truth())
    dataset = Dataset(dataset.labels, dataset.videos, dataset.events, extra={"licence": "CC0"})
    account = module.write(dataset, tmp_path / "file")
    kept = module.read(tmp_path / "file").extra.get("licence") == "CC0"
    assert account.counts["dataset_fields_left_out"] == (not kept)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"native"}))
def test_the_docstring_says_which_frame_is_which(name):
    assert "frame" in load_plugin(PACKAGE, name, "format").__doc__.lower()


@pytest.mark.parametrize("name", formats_with("write"))
def test_a_dataset_without_events_is_written_and_read(name, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    module.write(make_dataset(tmp_path), tmp_path / "file")
    again = module.read(tmp_path / "file")
    assert len(again.videos) == 3 and again.events == ()


@pytest.mark.parametrize("some_events", [predictions(), []], ids=["events", "no-events"])
@pytest.mark.parametrize("name", formats_with("write_predictions"))
def test_predictions_are_written_and_read_again_where_the_format_reads_them(name, some_events, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    dataset = make_dataset(tmp_path)
    module.write_predictions(some_events, dataset, tmp_path / "out")
    assert (tmp_path / "out").exists()
    assert not [file for _, _, files in os.walk(tmp_path) for file in files if file.endswith(".partial")]
    if hasattr(module, "read_predictions"):
        assert spans(module.read_predictions(tmp_path / "out", dataset)) == spans(some_events)


@pytest.mark.parametrize("name", formats_with("write_predictions"))
@pytest.mark.parametrize(
    "wrong",
    [Event("b", "take", 0, 1), Event("zz", "take", 0, 1, score=0.5), Event("a", "take", 0, 9, score=0.5)],
    ids=["no score", "unknown video", "beyond the end"],
)
def test_predictions_that_do_not_fit_are_refused_and_nothing_is_written(name, wrong, tmp_path):
    module = load_plugin(PACKAGE, name, "format")
    with pytest.raises(VjepaLocError, match=r"events\[6\]"):
        module.write_predictions([*predictions(), wrong], make_dataset(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
