"""The picture of a video: the right frames, the right cells, the right times, for any video."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from features.schema import Storage
from features.store import open_store
from features.store_copy import subset_store
from features.store_import import import_array
from features.store_picture import Shown, draw_video, finest_level, painted_cells, similarity
from features.store_show import default_picture, read_frames, show_video
from features.token_colours import TokenColours, evenly_spaced
from tests.features.store_builder import add_video, simulated_tokens, small_store
from vjepa_loc.dataset import Dataset, Video


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "v", simulated_tokens(40))
    return store


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_frames_are_those_of_the_steps_that_are_named(store, clip, read_number):
    video = store.video("v")
    shown = Shown.of(video)
    assert len(shown.steps) == 12 and shown.frames == tuple(2 * step for step in shown.steps)
    assert shown.times_s == pytest.approx([frame / 25 for frame in shown.frames])
    as_displayed = SimpleNamespace(width=144, height=64, fps=video.fps)
    frames = read_frames(clip("v.mp4", num_frames=80, width=144, height=64), shown.frames, as_displayed)
    assert {number: read_number(frame) for number, frame in frames.items()} == {number: number for number in shown.frames}


@pytest.mark.parametrize(("num_steps", "count", "expected"), [(1, 12, [0]), (3, 12, [0, 1, 2]), (10, 2, [2, 7]), (100, 4, [12, 37, 62, 87])])
def test_steps_are_evenly_spaced(num_steps, count, expected):
    assert evenly_spaced(num_steps, count) == expected


def test_a_few_steps_stay_a_few(tmp_path):
    store = small_store(tmp_path / "store")
    for num_steps, shown in [(1, 1), (5, 5), (6, 6), (9, 6), (13, 12)]:
        add_video(store, str(num_steps), simulated_tokens(num_steps))
        assert len(Shown.of(store.video(str(num_steps))).steps) == shown


def test_colours_follow_what_moves_and_not_an_outlier_channel(tmp_path):
    store = small_store(tmp_path / "store")
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(20, 6, 6, 24)).astype(np.float32) * 0.1
    tokens[:, :3, :, :12] += 3
    tokens[..., 20] = rng.normal(size=(20, 6, 6)) * 500
    add_video(store, "v", tokens)
    video = store.video("v")
    colours = TokenColours.fit(video, "tokens")
    rgb = colours.paint(torch.from_numpy(tokens[:1]))[0]
    assert rgb.shape == (6, 6, 3) and rgb.min() >= 0 and rgb.max() <= 1
    assert abs(rgb[:3, :, 0].mean() - rgb[3:, :, 0].mean()) > 0.7
    assert np.array_equal(TokenColours.fit(video, "tokens").paint(torch.from_numpy(tokens[:1]))[0], rgb)


def test_the_matrix_shows_what_repeats_at_its_time(tmp_path):
    store = small_store(tmp_path / "store")
    scenes = simulated_tokens(2, seed=5)
    add_video(store, "v", scenes[[0] * 10 + [1] * 10 + [0] * 10])
    edges_s, matrix = similarity(store.video("v"))
    assert edges_s == pytest.approx(np.arange(31) * 2 / 25)
    assert matrix[:10, 20:].min() > 0.9 and matrix[:10, 10:20].max() < -0.3
    assert np.allclose(np.diag(matrix), 1)


def test_a_long_video_has_a_bounded_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr("features.store_picture.MATRIX_STEPS", 8)
    store = small_store(tmp_path / "store")
    add_video(store, "v", simulated_tokens(40))
    edges_s, matrix = similarity(store.video("v"))
    assert matrix.shape == (8, 8) and (edges_s[0], edges_s[-1]) == (0, 3.2) and (np.diff(edges_s) > 0).all()


def test_cells_in_bars_are_grey(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "v", simulated_tokens(40), fit="letterbox")
    video = store.video("v")
    for level in ("tokens", "pool4"):
        rgb = painted_cells(video, level, TokenColours.fit(video, level), 3)
        grey = (rgb == 0.82).all(-1)
        assert grey.any() == (level == "tokens") and (grey == ~video.valid(level)).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_a_picture_of_every_fit(tmp_path, clip, fit):
    store = small_store(tmp_path / "store")
    add_video(store, "Ä $x$ v", simulated_tokens(6), fit=fit)
    dataset = Dataset(["x"], {"Ä $x$ v": Video("Ä $x$ v", file=clip("v.mp4", num_frames=12))})
    description = show_video(store, "Ä $x$ v", dataset, tmp_path / "a" / "v.png")
    picture = pixels(tmp_path / "a" / "v.png")
    assert picture.shape[1] == 1430 and (picture < 250).any(-1).mean() > 0.2
    assert description.values["frames_from"] == str(tmp_path / "v.mp4")
    assert description.values["problem"] == "the video file has changed since its extraction"
    # Only bars are drawn in this grey.
    bars = (picture == 209).all(-1).mean()
    assert bars > 0.01 if fit == "letterbox" else bars < 0.001


def test_without_its_file_a_video_is_drawn_and_the_picture_says_so(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "v", simulated_tokens(1))
    missing = Dataset(["x"], {"v": Video("v", file=tmp_path / "absent.mp4")})
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = Dataset(["x"], {"v": Video("v", file=tmp_path / "broken.mp4")})
    for dataset, problem in [
        (None, "no dataset names its video file"), (Dataset(["x"], {}), "no dataset names its video file"),
        (Dataset(["x"], {"v": Video("v")}), "the dataset names no file for it"),
        (missing, "the video file is not there: "), (broken, "broken.mp4"),
    ]:
        description = show_video(store, "v", dataset, tmp_path / "v.png")
        assert problem in description.values["problem"] and ("frames", description.values["problem"]) in description.facts
        assert pixels(tmp_path / "v.png").shape[1] == 1430


@pytest.mark.parametrize("shape", [(1, 8), (1, 2, 3, 4), (50, 1), (7, 2)])
@pytest.mark.filterwarnings("error")
def test_tiny_videos_are_drawn(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=shape))
    import_array(tmp_path / "x.npy", tmp_path / "store", "猫の動画", 25, 16)
    assert show_video(open_store(tmp_path / "store"), "猫の動画", None, tmp_path / "v.png").values["steps"] == shape[0]
    assert pixels(tmp_path / "v.png").shape[1] == 1430


def test_a_constant_video_is_grey(tmp_path):
    store = small_store(tmp_path / "store", Storage(number_format="float16"))
    add_video(store, "v", np.ones((5, 6, 6, 24), np.float32))
    rgb = TokenColours.fit(store.video("v"), "tokens").paint(torch.ones(1, 6, 6, 24))
    assert (rgb == 0.5).all()
    draw_video(store.video("v"), [], {}, None, tmp_path / "v.png")


def test_a_store_without_tokens_shows_its_largest_pool(store, tmp_path):
    subset_store(store, tmp_path / "small", ["pool1", "pool4"])
    video = open_store(tmp_path / "small").video("v")
    assert finest_level(video) == "pool4"
    show_video(open_store(tmp_path / "small"), "v", None, tmp_path / "v.png")
    assert np.allclose(similarity(video)[1], similarity(store.video("v"))[1])


@pytest.mark.parametrize(("video_id", "name"), [("a/b c", "a_b_c.png"), ("..", "video.png"), ("Ä.mp4", "Ä.png"), ("x" * 300, "x" * 100 + ".png")])
def test_any_id_gives_a_file_name(video_id, name):
    assert str(default_picture(video_id)) == name
