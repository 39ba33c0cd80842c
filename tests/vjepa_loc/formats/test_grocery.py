"""GroceryVision: every layout of the tree, the rules for frames and uuids, the account, and both submissions."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vjepa_loc.dataset import Dataset, Video, index_videos, read_dataset, write_dataset
from vjepa_loc.errors import DatasetError, MissingFileError, UnknownNameError, VideoError
from vjepa_loc.events import Event
from vjepa_loc.formats import grocery

WIDTH, HEIGHT = 40, 20


def add_images(folder: Path, numbers, name="{:06d}.png") -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("L", (WIDTH, HEIGHT)).save(folder / name.format(number))
    return folder


def add_lines(folder: Path, lines_of_number: dict[int, list[str]], name="{:06d}.txt") -> Path:
    folder.mkdir(parents=True)
    for number, lines in lines_of_number.items():
        (folder / name.format(number)).write_text("\n".join(lines) + "\n")
    return folder


def add_video(folder: Path, numbers, lines_of_number=None) -> Path:
    add_images(folder / "frames", numbers)
    if lines_of_number is not None:
        add_lines(folder / "anns", lines_of_number)
    return folder


def line(uuid="u1", class_number=0, box=(0.25, 0.5, 0.5, 1.0)) -> str:
    return ", ".join(map(str, [uuid, class_number, *box]))


def spans(dataset: Dataset) -> list[tuple]:
    return [(event.id, event.label, event.start_frame, event.end_frame) for event in dataset.events]


def counts(dataset: Dataset) -> dict:
    return dataset.extra["reading"]["counts"]


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.extra["reading"]["notes"])


def test_frames_that_share_a_uuid_become_an_event_with_one_box_per_frame(tmp_path):
    lines = {2: [line("a", 0), line("b", 0)], 3: [line("a", 0), line("c", 2)], 4: [], 5: [line("a", 0), line("b", 0)]}
    root = add_video(tmp_path / "cart_7", range(10), lines)
    dataset = grocery.read(root)
    assert dataset.labels == ("take", "return", "rummage")
    assert spans(dataset) == [("a", "take", 2, 6), ("b", "take", 2, 6), ("c", "rummage", 3, 4)]
    a, b, _ = dataset.events
    assert a.box_frames_K.tolist() == [2, 3, 5] and b.box_frames_K.tolist() == [2, 5]
    assert a.boxes_K4[0].tolist() == [10.0, 10.0, 20.0, 20.0]
    video = dataset.videos["cart_7"]
    assert (video.width, video.height, video.num_frames, video.split) == (WIDTH, HEIGHT, 10, "train")
    assert video.fps == 25.0 and video.fps_nominal and video.file == root / "frames"
    assert counts(dataset) == {
        "annotation_lines": 6,
        "videos": 1,
        "videos_without_anns": 0,
        "frames": 10,
        "annotated_frames": 3,
        "boxes": 6,
        "events": 3,
        "events_take": 2,
        "events_return": 0,
        "events_rummage": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "b89d3411-356b, 1, 0.25, 0.5, 0.5, 1.0",
        "[b89d3411-356b, 1, 0.25, 0.5, 0.5, 1.0]",
        "['b89d3411-356b', 1, 0.25, 0.5, 0.5, 1.0],",
        '["b89d3411-356b",1,0.25,0.5,0.5,1.0]',
        "\ufeffb89d3411-356b, 1.0, 0.25, 0.5, 0.5, 1.0",
    ],
)
def test_the_forms_of_a_line_mean_the_same(tmp_path, text):
    dataset = grocery.read(add_video(tmp_path / "cart", range(3), {1: [text, ""]}))
    assert spans(dataset) == [("b89d3411-356b", "return", 1, 2)]
    assert dataset.events[0].boxes_K4.tolist() == [[10.0, 10.0, 20.0, 20.0]]


def test_numbers_of_images_become_frames_in_their_order(tmp_path):
    dataset = grocery.read(add_video(tmp_path / "from_one", range(1, 6), {1: [line()], 5: [line()]}))
    assert spans(dataset) == [("u1", "take", 0, 5)]
    assert dataset.videos["from_one"].extra["first_frame_number"] == 1
    dataset = grocery.read(add_video(tmp_path / "gaps", [3, 4, 7, 9], {4: [line()], 9: [line()]}))
    assert spans(dataset) == [("u1", "take", 1, 4)]
    assert dataset.videos["gaps"].extra["frame_numbers"] == [3, 4, 7, 9]
    assert counts(dataset)["image_sequences_with_gaps"] == 1
    assert "3 numbers have no image" in notes(dataset)


def test_the_size_of_turned_images_is_that_of_the_display(tmp_path):
    root = add_video(tmp_path / "cart", [], {0: [line()]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (WIDTH, HEIGHT)).save(root / "frames" / "0.jpg", exif=exif)
    dataset = grocery.read(root)
    assert (dataset.videos["cart"].width, dataset.videos["cart"].height) == (HEIGHT, WIDTH)
    assert dataset.events[0].boxes_K4.tolist() == [[5.0, 20.0, 10.0, 40.0]]


def test_splits_come_from_the_top_folders(tmp_path):
    add_video(tmp_path / "Train" / "store_1" / "cart_a", range(2), {0: [line()]})
    add_video(tmp_path / "validation" / "cart_b", range(2), {})
    add_video(tmp_path / "test" / "cart_c", range(2))
    dataset = grocery.read(tmp_path)
    assert {video.id: video.split for video in dataset.videos.values()} == {
        "store_1/cart_a": "train",
        "cart_c": "test",
        "cart_b": "val",
    }
    assert counts(dataset)["videos_without_anns"] == 1


def test_without_split_folders_annotated_videos_train_and_the_others_test(tmp_path):
    add_video(tmp_path / "cart_a", range(2), {0: [line()]})
    add_video(tmp_path / "cart_b", range(2))
    dataset = grocery.read(tmp_path)
    assert {video.id: video.split for video in dataset.videos.values()} == {"cart_a": "train", "cart_b": "test"}


def test_a_name_in_two_splits_takes_the_split_in_front(tmp_path):
    add_video(tmp_path / "train" / "cart", range(2), {0: [line("u")]})
    add_video(tmp_path / "test" / "cart", range(2), {1: [line("u")]})
    dataset = grocery.read(tmp_path)
    assert list(dataset.videos) == ["test/cart", "train/cart"]
    assert spans(dataset) == [("test/cart/u", "take", 1, 2), ("train/cart/u", "take", 0, 1)]
    assert counts(dataset)["uuids_in_several_videos"] == 1
    assert "ids begin with the split" in notes(dataset)


def test_frames_and_anns_may_hold_a_folder_per_video(tmp_path):
    add_images(tmp_path / "frames" / "cart_a", range(3))
    add_images(tmp_path / "frames" / "cart_b", range(3))
    add_lines(tmp_path / "anns" / "cart_a", {2: [line()]})
    dataset = grocery.read(tmp_path)
    assert {video.id: video.split for video in dataset.videos.values()} == {"cart_a": "train", "cart_b": "test"}
    assert spans(dataset) == [("u1", "take", 2, 3)]


@pytest.mark.parametrize("place", ["frames.mp4", "frames/cart.MP4"])
def test_frames_may_be_a_video_file(tmp_path, place):
    file = tmp_path / "cart" / place
    file.parent.mkdir(parents=True)
    file.touch()
    add_lines(tmp_path / "cart" / "anns", {0: [line()], 4: [line()]})
    probe = {"width": WIDTH, "height": HEIGHT, "fps": 24, "num_frames": 9}
    for answer in (probe, SimpleNamespace(**probe)):
        dataset = grocery.read(tmp_path, probe=lambda asked, answer=answer: answer if asked == file else None)
        video = dataset.videos["cart"]
        assert (video.file, video.fps, video.num_frames) == (file, 24.0, 9) and not video.fps_nominal
        assert spans(dataset) == [("u1", "take", 0, 5)]


def test_two_video_files_in_frames_are_two_videos(tmp_path):
    (tmp_path / "frames").mkdir()
    for name in ("a", "b"):
        (tmp_path / "frames" / f"{name}.mp4").touch()
    add_lines(tmp_path / "anns" / "b", {0: [line()]})
    dataset = grocery.read(tmp_path, probe=lambda _: {"width": WIDTH, "height": HEIGHT})
    assert [(video.id, video.split) for video in dataset.videos.values()] == [("a", "test"), ("b", "train")]
    assert spans(dataset) == [("u1", "take", 0, 1)]


@pytest.mark.parametrize(
    ("numbers_a", "numbers_b", "first", "note"),
    [
        ([0, 3], [9], 0, "numbered from 0: one has the number 0"),
        ([2, 3], [10], 1, "numbered from 1: one has its video's number of frames"),
        ([2, 3], [9], 0, "nothing tells whether"),
        ([0, 3], [10], 0, "numbered from 0"),
    ],
)
def test_video_files_of_a_tree_agree_where_numbers_begin(tmp_path, numbers_a, numbers_b, first, note):
    for name, numbers in (("a", numbers_a), ("b", numbers_b)):
        add_lines(tmp_path / name / "anns", {number: [line(name)] for number in numbers})
        (tmp_path / name / "frames.mp4").touch()
    dataset = grocery.read(tmp_path, probe=lambda _: {"width": WIDTH, "height": HEIGHT, "num_frames": 10})
    assert spans(dataset)[0] == ("a", "take", numbers_a[0] - first, 4 - first)
    assert note in notes(dataset)
    outside = numbers_b[0] - first >= 10
    assert counts(dataset).get("events_left_out", 0) == outside


def test_test_videos_need_no_probe(tmp_path):
    (tmp_path / "test" / "cart").mkdir(parents=True)
    (tmp_path / "test" / "cart" / "frames.mp4").touch()
    video = grocery.read(tmp_path).videos["cart"]
    assert (video.split, video.fps, video.num_frames, video.width) == ("test", None, None, None)


def test_boxes_of_a_video_file_need_a_probe(tmp_path):
    add_lines(tmp_path / "cart" / "anns", {0: [line()]})
    (tmp_path / "cart" / "frames.mp4").touch()
    with pytest.raises(DatasetError, match="frames.mp4: boxes are fractions of the picture, .*width.*convert"):
        grocery.read(tmp_path)


def test_what_lies_outside_the_video_is_cut_or_left_out_and_counted(tmp_path):
    lines = {2: [line("a")], 3: [line("a")], 7: [line("a"), line("b")]}
    dataset = grocery.read(add_video(tmp_path / "cart", range(5), lines))
    assert spans(dataset) == [("a", "take", 2, 4)]
    assert counts(dataset)["events_cut"] == 1 and counts(dataset)["events_left_out"] == 1
    assert "a of video cart has 1 of 3 frames outside the video" in notes(dataset)
    assert "000007.txt, line 2" in notes(dataset)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("u1, 0, 0.1, 0.1, 0.2", "expected 'uuid, class, x0, y0, x1, y1', got 'u1, 0, 0.1, 0.1, 0.2'"),
        ("nothing here", "expected 'uuid, class, x0, y0, x1, y1'"),
        ("u1, take, 0.1, 0.1, 0.2, 0.2", "expected five numbers after the uuid"),
        ("u1, 3, 0.1, 0.1, 0.2, 0.2", r"expected class 0, 1 or 2 (take, return, rummage), got 3"),
        ("u1, 0, nan, 0.1, 0.2, 0.2", "expected finite corners"),
    ],
)
def test_a_line_that_says_nothing_is_left_out_and_counted(tmp_path, bad, reason):
    dataset = grocery.read(add_video(tmp_path / "cart", range(3), {0: [line("a"), bad]}))
    assert spans(dataset) == [("a", "take", 0, 1)]
    assert counts(dataset)["annotation_lines_left_out"] == 1
    assert "000000.txt, line 2: " + reason in notes(dataset)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0.5, 0.1, 0.5, 0.4), "no area"),
        ((0.5, 0.4, 0.6, 0.1), "no area"),
        ((350, 20, 400, 60), "outside the picture"),
        ((-0.5, 0.2, 0, 0.6), "outside the picture"),
    ],
)
def test_a_frame_with_an_unusable_box_counts_for_the_interval_alone(tmp_path, box, reason):
    dataset = grocery.read(add_video(tmp_path / "cart", range(5), {1: [line()], 3: [line(box=box)]}))
    assert spans(dataset) == [("u1", "take", 1, 4)]
    assert dataset.events[0].box_frames_K.tolist() == [1]
    assert counts(dataset)["boxes_left_out"] == 1 and reason in notes(dataset)


def test_an_event_of_which_every_box_is_unusable_keeps_its_interval(tmp_path):
    dataset = grocery.read(add_video(tmp_path / "cart", range(5), {1: [line(box=(0, 0, 0, 0))]}))
    assert spans(dataset) == [("u1", "take", 1, 2)] and dataset.events[0].num_boxes == 0


def test_the_first_of_two_boxes_on_one_frame_stays_and_a_repetition_is_no_loss(tmp_path):
    second = line(box=(0.0, 0.0, 0.1, 0.1))
    dataset = grocery.read(add_video(tmp_path / "cart", range(5), {1: [line(), second], 2: [line(), line()]}))
    assert dataset.events[0].boxes_K4[0].tolist() == [10.0, 10.0, 20.0, 20.0]
    assert counts(dataset)["boxes_left_out"] == 1 and "a second box of u1 on this frame" in notes(dataset)


def test_a_uuid_that_changes_its_class_becomes_an_event_per_class(tmp_path):
    dataset = grocery.read(add_video(tmp_path / "cart", range(5), {1: [line("u", 0)], 2: [line("u", 2)]}))
    assert spans(dataset) == [("u/take", "take", 1, 2), ("u/rummage", "rummage", 2, 3)]
    assert counts(dataset)["uuids_with_several_classes"] == 1


def test_files_and_folders_that_belong_to_no_frame_are_counted(tmp_path):
    root = add_video(tmp_path / "carts" / "a", range(2), {0: [line()]})
    (root / "anns" / "classes.txt").write_text("take\n")
    add_lines(tmp_path / "carts" / "b" / "anns", {0: [line()]})
    dataset = grocery.read(tmp_path / "carts")
    assert list(dataset.videos) == ["a"]
    assert counts(dataset)["annotation_files_left_out"] == 1 and counts(dataset)["videos_left_out"] == 1


def test_a_video_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    add_video(tmp_path / "a", range(2), {0: [line()]})
    broken = add_video(tmp_path / "b", range(2), {0: [line()]})
    (broken / "frames" / "000000.png").write_bytes(b"no picture")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "frames.mp4").touch()

    def probe(file):
        raise VideoError(f"{file}: empty file")

    dataset = grocery.read(tmp_path, probe)
    assert list(dataset.videos) == ["a"] and counts(dataset)["videos_left_out"] == 2
    assert "cannot read its size" in notes(dataset) and "frames.mp4: empty file" in notes(dataset)


def test_a_tree_without_events_is_read(tmp_path):
    dataset = grocery.read(add_video(tmp_path / "cart", range(3), {}))
    assert dataset.events == () and counts(dataset)["events"] == 0


@pytest.mark.parametrize("name", ["none", "a_file"])
def test_no_folder_is_named(tmp_path, name):
    (tmp_path / "a_file").touch()
    found = {"none": "it does not exist", "a_file": "a file is there"}[name]
    with pytest.raises(MissingFileError, match=f"{name}: expected a folder of videos, each with frames/ and anns/; {found}"):
        grocery.read(tmp_path / name)


def test_a_folder_without_videos_is_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DatasetError, match="expected videos, each a folder with frames/ .* found none$"):
        grocery.read(tmp_path)
    (tmp_path / "cart" / "frames").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"found none \(.*cart has no images and no video"):
        grocery.read(tmp_path)


def test_images_of_several_videos_in_one_folder_are_refused_with_the_reason(tmp_path):
    folder = add_images(tmp_path / "frames", [1, 2], name="cart-a_{}.png")
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "cart-b_3.png")
    with pytest.raises(DatasetError, match="none of the videos can be read: .*use one folder per video"):
        grocery.read(tmp_path)


def test_annotations_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="none of the 2 annotation lines can be read, the first: .*line 1: expected"):
        grocery.read(add_video(tmp_path / "cart", range(2), {0: ["0 0.5 0.5 0.1 0.1", "1 0.2 0.2 0.1 0.1"]}))


@pytest.mark.parametrize("second", ["frames.mp4", "frames/cart.mp4"])
def test_two_sources_of_frames_are_refused(tmp_path, second):
    add_video(tmp_path / "cart", range(2))
    (tmp_path / "cart" / second).touch()
    with pytest.raises(DatasetError, match="cart: expected one source of frames, found .*; remove one"):
        grocery.read(tmp_path)


def test_a_read_tree_survives_as_a_native_file(tmp_path):
    dataset = grocery.read(add_video(tmp_path / "cart", [3, 5, 6], {3: [line("a")], 9: [line("b")]}))
    write_dataset(dataset, tmp_path / "d.json")
    again = read_dataset(tmp_path / "d.json")
    assert again.videos == dataset.videos and again.extra == dataset.extra and spans(again) == spans(dataset)


# Submissions


def prediction_dataset() -> Dataset:
    videos = [
        Video("cart_a", num_frames=20, width=WIDTH, height=HEIGHT, extra={"first_frame_number": 1}),
        Video("test/cart_b", num_frames=4, extra={"frame_numbers": [3, 4, 7, 9]}),
    ]
    return Dataset(grocery.LABELS, index_videos(videos))


def test_both_submissions_to_the_letter(tmp_path):
    boxes_K4 = np.array([[0, 0, 10, 10], [20, 10, 30, 20]], dtype=float)
    events = [
        Event("cart_a", "rummage", 2.4, 6.0, [2, 4], boxes_K4, [0.5, 1.0], score=0.75),
        Event("cart_a", "take", 3.6, 4.2, score=1e-9),
        Event("test/cart_b", "return", 1, 4, score=1),
    ]
    account = grocery.write_predictions(events, prediction_dataset(), tmp_path / "out")
    expected = {"videos": 2, "tal_events": 3, "stal_tubes": 1, "events_only_in_tal": 2}
    assert expected.items() <= account.counts.items()
    assert (tmp_path / "out" / "tal" / "cart_a.txt").read_text() == "3, 6, 2, 0.75\n4, 4, 0, 1e-09\n"
    assert (tmp_path / "out" / "tal" / "test%2Fcart_b.txt").read_text() == "4, 9, 1, 1.0\n"
    assert json.loads((tmp_path / "out" / "stal" / "cart_a.json").read_text()) == [
        {
            "track": [
                [3, 0.0, 0.0, 0.25, 0.5, 0.5],
                [4, 0.25, 0.25, 0.5, 0.75, 0.75],
                [5, 0.5, 0.5, 0.75, 1.0, 1.0],
            ],
            "conf": 0.75,
            "cat": "rummage",
        }
    ]
    assert json.loads((tmp_path / "out" / "stal" / "test%2Fcart_b.json").read_text()) == []


def test_what_was_read_is_submitted_under_the_numbers_of_the_files(tmp_path):
    lines = {number: [line("a", 2)] for number in (4, 5, 9)}
    dataset = grocery.read(add_video(tmp_path / "cart", [3, 4, 5, 7, 9], lines))
    grocery.write_predictions([event.replace(score=0.5) for event in dataset.events], dataset, tmp_path / "out")
    assert (tmp_path / "out" / "tal" / "cart.txt").read_text() == "4, 9, 2, 0.5\n"
    (tube,) = json.loads((tmp_path / "out" / "stal" / "cart.json").read_text())
    assert [row[0] for row in tube["track"]] == [4, 5, 7, 9]
    assert tube["track"][0][1:] == [0.25, 0.5, 0.5, 1.0, 0.5]


def test_nothing_is_written_where_an_id_is_too_long_for_a_file(tmp_path):
    dataset = Dataset(grocery.LABELS, index_videos([Video("a", num_frames=9), Video("é" * 121, num_frames=9)]))
    with pytest.raises(DatasetError, match="video 'éé.*expected an id of at most 240 bytes, files are named by it"):
        grocery.write_predictions([], dataset, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_asked_videos_are_written_also_without_events(tmp_path):
    grocery.write_predictions([], prediction_dataset(), tmp_path, video_ids=["cart_a"])
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["cart_a.json", "cart_a.txt"]
    assert (tmp_path / "tal" / "cart_a.txt").read_text() == ""
    account = grocery.write_predictions([], prediction_dataset(), tmp_path, video_ids=["test/cart_b"])
    assert account.to_dict()["notes"] == [
        "2 other files there: stal/cart_a.json was there before and is of no video written now; remove it; "
        "tal/cart_a.txt was there before and is of no video written now; remove it"
    ]
    with pytest.raises(UnknownNameError, match="video_ids: unknown name 'cart_z'.*Did you mean 'cart_a'?"):
        grocery.write_predictions([], prediction_dataset(), tmp_path, video_ids=["cart_z"])


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event("cart_a", "take", 0, 1), "score: the challenge wants a confidence from 0 to 1, got None"),
        (Event("cart_a", "take", 0, 1, score=1.5), "confidence from 0 to 1, got 1.5"),
        (Event("cart_a", "take", 0, 1, [0], [[0, 0, 1, 1]], [-1], score=0.5), "confidence from 0 to 1, got -1.0"),
        (Event("test/cart_b", "take", 0, 1, score=0.5), "video_id: expected one of the 1 videos to write"),
        (Event("cart_a", "take", 0, 21, score=0.5), "end_frame: 21.0 lies outside the video"),
    ],
)
def test_events_that_the_challenge_cannot_take_are_named_and_nothing_is_written(tmp_path, event, message):
    with pytest.raises(DatasetError, match=message):
        grocery.write_predictions([event], prediction_dataset(), tmp_path / "out", video_ids=["cart_a"])
    assert not (tmp_path / "out").exists()


def test_labels_of_other_data_and_unknown_sizes_are_named(tmp_path):
    other = Dataset(("pour",), {"v": Video("v")})
    with pytest.raises(DatasetError, match="label: GroceryVision has no such class: unknown name 'pour'"):
        grocery.write_predictions([Event("v", "pour", 0, 1, score=1)], other, tmp_path)
    event = Event("test/cart_b", "take", 0, 1, [0], [[0, 0, 1, 1]], score=1)
    with pytest.raises(DatasetError, match="video 'test/cart_b', width and height: needed"):
        grocery.write_predictions([event], prediction_dataset(), tmp_path)
