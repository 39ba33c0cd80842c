"""Synthetic cart data: the files are real videos, the truth follows its rule, and the difficulty is as promised."""

import dataclasses

import av
import numpy as np
import pytest

from benchmarks.trivial_detectors import mean_boxes_at_true_times, measure
from features import synthetic
from features.synthetic import describe, split_counts, synthesize
from features.synthetic_motion import draw_scene
from features.synthetic_scene import FPS, HEIGHT_PX, WIDTH_PX, Scene, Track, event_truth, render
from features.synthetic_sprites import Pose, Sprite
from vjepa_loc.dataset import Dataset, index_videos, read_dataset
from vjepa_loc.errors import ConfigError
from vjepa_loc.metrics import stal
from vjepa_loc.scoring_input import ScoringInput

WHOLE_FRAME = (0, 0, WIDTH_PX, HEIGHT_PX)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(5, index) for index in range(24)]


@pytest.fixture(scope="module")
def events(scenes):
    return [event for scene in scenes for event in scene.events]


@pytest.fixture(scope="module")
def dataset_file(tmp_path_factory):
    done = []
    out_dir = tmp_path_factory.mktemp("cart")
    file = synthesize(out_dir, {"train": 2, "test": 3}, 5, num_workers=2, on_video=lambda *counts: done.append(counts))
    assert done == [(number, 5) for number in range(1, 6)]
    return file


def overlapping(event, scene: Scene) -> list:
    return [
        other
        for other in scene.events
        if other is not event and other.start_frame < event.end_frame and event.start_frame < other.end_frame
    ]


def front_product(scene: Scene, frame: int) -> np.ndarray:
    """Which product each pixel of a frame shows, -1 for none, by painting everything over the whole frame."""
    shown = np.full((HEIGHT_PX, WIDTH_PX), -1)
    tracks = [(track, number) for number, track in enumerate(scene.products)] + [(track, -1) for track in scene.hands]
    for track, number in sorted((t for t in tracks if t[0].is_present(frame)), key=lambda t: t[0].level_F[frame]):
        alpha = track.sprite(frame).sample_alpha(track.pose(frame, scene.shake_F2[frame]), WHOLE_FRAME)
        shown[alpha > 0.5] = number
    return shown


def square(side_px: int) -> Sprite:
    texels = np.zeros((2 * side_px + 4, 2 * side_px + 4, 4), dtype=np.float32)
    texels[2:-2, 2:-2, 3] = 1
    return Sprite(texels, 2.0, -side_px / 2, -side_px / 2, side_px / 2, side_px / 2)


def moving_square(xs: list[float], y: float = 90.0, level: float = 1.0) -> Track:
    track = Track.absent((square(20),), len(xs))
    track.pose_F4[:, 0], track.pose_F4[:, 1], track.level_F[:] = xs, y, level
    return track


def plain_scene(products: list[Track], hands: list[Track], shake_px: float = 0.0) -> Scene:
    num_frames = len(products[0].level_F)
    shake_F2 = np.zeros((num_frames, 2))
    shake_F2[::2] = shake_px
    gain_F3, tilt_F2 = np.ones((num_frames, 3)), np.zeros((num_frames, 2))
    return Scene("v", num_frames, np.zeros((1, 1, 3)), products, hands, shake_F2, gain_F3, tilt_F2, (1,))


# Files.


def test_files_are_h264_with_the_stated_frames(dataset_file):
    dataset = read_dataset(dataset_file)
    assert [video.split for video in dataset.videos.values()] == ["train", "train", "test", "test", "test"]
    for video in dataset.videos.values():
        with av.open(str(video.file)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == FPS == video.fps
            sizes = [(frame.width, frame.height) for frame in container.decode(stream)]
        assert sizes == [(video.width, video.height)] * video.num_frames
    assert list(dataset_file.parent.rglob("*.partial")) == []


def test_decoded_pictures_are_the_rendered_ones(dataset_file):
    video = read_dataset(dataset_file).videos["cart-0000"]
    with av.open(str(video.file)) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        errors = [
            np.abs(picture.astype(np.int16) - rendered).mean()
            for picture, rendered, _ in zip(decoded, render(draw_scene(5, 0)), range(40))
        ]
    assert len(errors) == 40
    assert max(errors) < 6


def test_a_video_depends_on_seed_and_number_alone(dataset_file, tmp_path):
    again_file = synthesize(tmp_path, {"other": 1}, 5, num_workers=1)
    (video,) = read_dataset(again_file).videos.values()
    assert video.file.read_bytes() == (dataset_file.parent / "videos" / video.file.name).read_bytes()
    dataset, again = read_dataset(dataset_file), read_dataset(again_file)
    for event, event_again in zip(dataset.events_of(video.id), again.events_of(video.id), strict=True):
        assert (event.label, event.id) == (event_again.label, event_again.id)
        assert (event.start_frame, event.end_frame) == (event_again.start_frame, event_again.end_frame)
        np.testing.assert_array_equal(event.box_frames_K, event_again.box_frames_K)
        np.testing.assert_array_equal(event.boxes_K4, event_again.boxes_K4)


def test_what_is_made_is_not_made_again(dataset_file, monkeypatch):
    monkeypatch.setattr(synthetic, "_make_videos", lambda jobs, num_workers: pytest.fail("rendered again"))
    before = dataset_file.stat().st_mtime_ns
    assert synthesize(dataset_file.parent, {"train": 2, "test": 3}, 5) == dataset_file
    assert dataset_file.stat().st_mtime_ns == before


def test_another_recipe_or_a_lost_video_is_made(dataset_file, tmp_path, monkeypatch):
    (tmp_path / "dataset.json").write_bytes(dataset_file.read_bytes())
    jobs_seen = []
    monkeypatch.setattr(synthetic, "_make_videos", lambda jobs, num_workers: jobs_seen.append(len(jobs)) or [])
    synthesize(tmp_path, {"train": 2, "test": 3}, 5)
    synthesize(tmp_path, {"train": 2}, 6)
    assert jobs_seen == [5, 2]


def test_a_dataset_of_another_origin_is_not_overwritten(tmp_path):
    file = tmp_path / "dataset.json"
    file.write_text('{"format": "vjepa_loc", "version": 1, "labels": ["a"], "videos": [], "events": []}')
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="dataset of another origin; expected a folder without one"):
        synthesize(tmp_path, 1)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "num_videos, seed, message",
    [
        (0, 0, "expected at least 1 video, got 0"),
        ({"train": 1, "all": 1}, 0, "splits not named 'all', none negative, got"),
        ({"train": -1, "val": 3}, 0, "none negative"),
        (3, -1, "expected a seed of 0 or more, got -1"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, num_videos, seed, message):
    with pytest.raises(ConfigError, match=message):
        synthesize(tmp_path / "new", num_videos, seed)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("num_videos, expected", [(66, (40, 10, 16)), (1, (1, 0, 0)), (2, (1, 0, 1)), (10, (6, 2, 2))])
def test_split_counts(num_videos, expected):
    assert tuple(split_counts(num_videos).values()) == expected


# The rule of truth.


def test_boxes_surround_the_pixels_that_show_the_product(scenes):
    num_boxes = 0
    for scene in scenes[:2]:
        for frame in range(0, scene.num_frames, 3):
            current = [event for event in scene.events if event.start_frame <= frame < event.end_frame]
            shown = front_product(scene, frame) if current else None
            for event in current:
                ys, xs = np.nonzero(shown == event.product)
                expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if xs.size else None
                assert event.boxes.get(frame) == expected
                num_boxes += expected is not None
    assert num_boxes > 60


def test_take_starts_and_return_ends_with_a_fifth_of_the_product_in_view(scenes):
    num_seen = 0
    for scene in scenes[:6]:
        for event in scene.events:
            if event.label == "rummage":
                continue
            inner = event.start_frame if event.label == "take" else event.end_frame - 1
            outer = inner - 1 if event.label == "take" else inner + 1
            track = scene.products[event.product]
            for frame, is_inner in ((inner, True), (outer, False)):
                if not (0 <= frame < scene.num_frames and track.is_present(frame)):
                    continue
                num_visible = (front_product(scene, frame) == event.product).sum()
                far_frame = (-400, -400, WIDTH_PX + 400, HEIGHT_PX + 400)
                alpha = track.sprite(frame).sample_alpha(track.pose(frame, scene.shake_F2[frame]), far_frame)
                assert (num_visible >= 0.2 * (alpha > 0.5).sum()) == is_inner
                num_seen += 1
    assert num_seen > 40


def test_movement_of_two_pixels_in_the_basket_is_what_counts():
    xs = [100, 100, 101.9, 102, 110, 111.9, 112.1, 113.9, 114, 114]
    scene = plain_scene([moving_square(xs)], [], shake_px=5)
    event = event_truth(scene, 0, "rummage", 0, 10)
    assert (event.start_frame, event.end_frame) == (3, 6)
    assert event.boxes == {3: (92, 80, 112, 100), 4: (105, 85, 125, 105), 5: (102, 80, 122, 100)}


def test_a_hidden_frame_has_no_box_and_the_event_goes_on():
    hand = moving_square([0, 0, 0, 112, 0, 0], level=9)
    scene = plain_scene([moving_square([100, 100, 106, 112, 118, 118])], [hand])
    event = event_truth(scene, 0, "rummage", 0, 6)
    assert (event.start_frame, event.end_frame) == (2, 4)
    assert event.boxes == {2: (96, 80, 116, 100)}


def test_a_take_is_seen_over_the_edge_and_ends_at_rest():
    scene = plain_scene([moving_square([-12, -9, -6, -5, 20, 48.1, 50, 50])], [])
    event = event_truth(scene, 0, "take", 0, 8)
    assert (event.start_frame, event.end_frame) == (2, 5)
    assert event.boxes[2] == (0, 80, 4, 100)


def test_a_return_ends_when_a_fifth_is_left():
    scene = plain_scene([moving_square([50, 50, 48, 20, -5, -6, -9, -12])], [])
    event = event_truth(scene, 0, "return", 0, 8)
    assert (event.start_frame, event.end_frame) == (2, 6)


# What happens, over a seed.


def test_lengths_of_videos_and_numbers_of_events(scenes):
    assert all(8 * FPS <= scene.num_frames <= 16 * FPS for scene in scenes)
    assert all(6 <= len(scene.events) <= 12 for scene in scenes)
    assert len({len(scene.events) for scene in scenes}) >= 5


def test_event_lengths_are_log_normal_around_16_frames(events):
    lengths = np.array([event.end_frame - event.start_frame for event in events])
    assert lengths.min() >= 8 and lengths.max() <= 90
    assert 14 <= np.median(lengths) <= 18
    assert 0.4 <= np.log(lengths).std() <= 0.65
    assert (lengths > 32).mean() >= 0.05


def test_all_labels_are_common(events):
    for label in synthetic.LABELS:
        assert np.mean([event.label == label for event in events]) >= 0.2


def test_a_quarter_of_the_events_overlap_and_some_have_the_same_label(scenes):
    for scene in scenes:
        assert np.mean([bool(overlapping(event, scene)) for event in scene.events]) >= 0.25
    same = [any(o.label == e.label for o in overlapping(e, scene)) for scene in scenes for e in scene.events]
    assert np.mean(same) >= 0.1


def test_a_product_is_in_one_event_at_a_time_and_lies_there_before(scenes):
    for scene in scenes:
        for event in scene.events:
            assert all(other.product != event.product for other in overlapping(event, scene))
            track = scene.products[event.product]
            takes = [other for other in scene.events if (other.label, other.product) == ("take", event.product)]
            if event.label != "take":
                assert track.is_present(0) or any(take.end_frame <= event.start_frame for take in takes)
            if event.label == "return":
                assert not track.is_present(scene.num_frames - 1)
        num_taken = sum(event.label == "take" for event in scene.events)
        assert len({event.product for event in scene.events if event.label == "take"}) == num_taken


def test_there_are_two_hands_and_some_come_empty(scenes):
    for scene in scenes:
        assert np.sum([np.isfinite(hand.level_F) for hand in scene.hands], axis=0).max() <= 2
    num_empty = [len(scene.hands) - len(scene.events) for scene in scenes]
    assert min(num_empty) >= 0 and np.mean(num_empty) >= 1


def test_products_slide_without_an_event_when_the_cart_jerks(scenes):
    num_sliding = 0
    for scene in scenes:
        for number, track in enumerate(scene.products):
            step_px = np.hypot(*np.diff(track.pose_F4[:, :2], axis=0).T)
            step_px[~(np.isfinite(track.level_F[:-1]) & np.isfinite(track.level_F[1:]))] = 0
            for event in scene.events:
                if event.product == number:
                    step_px[max(event.start_frame - 12, 0) : event.end_frame + 12] = 0
            num_sliding += step_px.sum() >= 2
    assert num_sliding >= 3 * len(scenes)


def test_hands_hide_part_of_the_products(scenes):
    shares = []
    for scene in scenes[:10]:
        bare = dataclasses.replace(scene, hands=[])
        for event in scene.events:
            middle = (event.start_frame + event.end_frame) // 2
            shares.append(
                (front_product(scene, middle) == event.product).sum()
                / max((front_product(bare, middle) == event.product).sum(), 1)
            )
    assert np.mean(np.array(shares) < 0.9) >= 0.7
    assert np.mean(np.array(shares) > 0.2) >= 0.9


def test_products_are_a_tenth_to_a_quarter_of_the_width(scenes):
    sides_px = [max(t.sprites[0].right_px, t.sprites[0].bottom_px) * 2 for scene in scenes for t in scene.products]
    assert 0.1 * WIDTH_PX <= min(sides_px) and max(sides_px) <= 0.25 * WIDTH_PX
    assert np.std(sides_px) > 8


def test_camera_shakes_and_light_drifts(scenes):
    for scene in scenes:
        assert np.ptp(scene.shake_F2, axis=0).min() > 0.5
        # Slow, apart from the jolts: most frames follow the one before by less than half a pixel.
        assert np.median(np.abs(np.diff(scene.shake_F2, axis=0))) < 0.5
    assert np.mean([np.ptp(scene.gain_F3) for scene in scenes]) > 0.1


def test_videos_of_a_seed_differ_and_do_not_depend_on_each_other(scenes):
    again = draw_scene(5, 4)
    assert again.events == scenes[4].events
    for first, second, _ in zip(render(again), render(scenes[4]), range(3)):
        np.testing.assert_array_equal(first, second)
    assert draw_scene(6, 4).events != scenes[4].events != scenes[3].events


def test_a_sprite_is_sampled_at_its_pose():
    sprite = square(10)
    for pose, expected in ((Pose(50, 40, 0, 1), (45, 35, 55, 45)), (Pose(50, 40, 0, 2), (40, 30, 60, 50))):
        ys, xs = np.nonzero(sprite.sample_alpha(pose, WHOLE_FRAME) > 0.5)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == expected
        x0, y0, x1, y1 = sprite.extent(pose)
        assert x0 <= expected[0] and y0 <= expected[1] and x1 >= expected[2] and y1 >= expected[3]


# The bars on difficulty, in small; benchmarks/trivial_detectors.py measures them on a whole dataset.


def test_mean_boxes_at_the_true_times_stay_below_the_bar(scenes, tmp_path):
    entries = [describe(scene, tmp_path / f"{scene.video_id}.mp4", "test") for scene in scenes]
    events = [event for _, events_of_video in entries for event in events_of_video]
    dataset = Dataset(synthetic.LABELS, index_videos(video for video, _ in entries), events)
    ids = list(dataset.videos)
    predictions = mean_boxes_at_true_times(dataset, ids, ids)
    assert len(predictions) == len(dataset.events)
    assert stal.compute(ScoringInput.of(dataset, predictions, ids), thresholds=(0.5,)).values["stal/map@0.50"] <= 0.15


def test_frame_differences_stay_below_the_bar(dataset_file):
    figures = measure(read_dataset(dataset_file), "train", "test")
    assert figures["frame_difference/tal@0.50"] <= 0.40
    assert figures["mean_box/stal@0.50/true_times"] <= 0.15
