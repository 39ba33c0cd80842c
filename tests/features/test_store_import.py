"""Other people's features become a store that verifies."""

from fractions import Fraction

import numpy as np
import pytest

from features.schema import Storage
from features.store import open_store
from features.store_import import import_array
from vjepa_loc.errors import ConfigError, MissingFileError, StoreError, StoreMismatchError


def saved(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("shape", [(100, 8), (100, 3, 4, 8)])
def test_features_are_stored(tmp_path, shape):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    file = saved(tmp_path / "x.npy", features)
    assert import_array(file, tmp_path / "store", "v", fps=25, stride=4)
    assert not import_array(file, tmp_path / "store", "v", fps=25, stride=4)
    store = open_store(tmp_path / "store")
    video = store.video("v")
    assert store.verify().ok and (video.num_frames, video.num_steps, video.fps) == (400, 100, 25)
    assert video.grid == (1, 1) if len(shape) == 2 else (3, 4)
    assert np.allclose(video.read("tokens").reshape(shape), features, atol=0.05)
    assert video.time_grid.start_T[3] == 12 and video.space_grid.grid == video.grid


def test_what_cannot_be_imported_is_said(tmp_path):
    def attempt(error, message, path, **changes):
        with pytest.raises(error, match=message):
            import_array(path, tmp_path / "store", "v", **({"fps": 25, "stride": 4} | changes))

    good = saved(tmp_path / "good.npy", np.ones((5, 8)))
    attempt(MissingFileError, "there is no file .*none.npy", tmp_path / "none.npy")
    attempt(ConfigError, r"expected numbers of shape \(T, C\) or \(T, H, W, C\), got float64 \(5,\)", saved(tmp_path / "a.npy", np.ones(5)))
    attempt(ConfigError, "expected numbers of shape", saved(tmp_path / "b.npy", np.array([["x"]])))
    (tmp_path / "c.npy").write_text("no numbers")
    attempt(ConfigError, "c.npy is not an .npy file of numbers", tmp_path / "c.npy")
    for fps in (0, -25, "x", "25/0", "nan", "inf"):
        attempt(ConfigError, f"fps: expected a positive number or a fraction such as 30000/1001, got {fps!r}", good, fps=fps)
    attempt(ConfigError, "stride: expected at least 1 frame per step, got 0", good, stride=0)
    attempt(ConfigError, "expected a width and a height of at least 1 pixel, or neither, got 320 and None", good, width=320)
    for num_frames in (16, 1000):
        attempt(ConfigError, f"5 steps of 4 frames are a video of about 20 frames, got num_frames {num_frames}", good, num_frames=num_frames)
    np.savez(tmp_path / "e.npz", a=np.ones(3))
    attempt(ConfigError, "e.npz holds several arrays", tmp_path / "e.npz")
    attempt(ConfigError, "d.npy: step 1, channel 0: expected a finite number, got nan; nothing", saved(tmp_path / "d.npy", np.array([[1.0], [np.nan]])))
    grid = np.ones((70, 2, 3, 4), np.float64)
    grid[66, 1, 2, 3] = 1e300
    attempt(ConfigError, r"step 66, row 1, column 2, channel 3: expected a finite number, got 1e\+300", saved(tmp_path / "f.npy", grid))
    assert not (tmp_path / "store").exists()
    import_array(good, tmp_path / "good", "v", 25, 4)
    with pytest.raises(StoreMismatchError, match="frame_step: 4 != 8"):
        import_array(good, tmp_path / "good", "w", 25, 8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int8", "uint8", "int64"])
def test_any_numbers_are_taken(tmp_path, dtype):
    values = np.arange(60).reshape(20, 3).astype(dtype)
    import_array(saved(tmp_path / "x.npy", values), tmp_path / "store", "v", 25, 1, storage=Storage(number_format="float16"))
    assert np.array_equal(open_store(tmp_path / "store").video("v").read("tokens").reshape(20, 3), values.astype(np.float16))


def test_rate_length_and_size_are_kept(tmp_path):
    file = saved(tmp_path / "x.npy", np.ones((10, 3)))
    import_array(file, tmp_path / "store", "v", "30000/1001", 8, num_frames=93, width=320, height=180)
    import_array(file, tmp_path / "store", "w", 29.97, 8, num_frames=73)
    video, shorter = (open_store(tmp_path / "store").video(name) for name in "vw")
    assert (video.fps, video.num_frames, video.width, video.height) == (Fraction(30000, 1001), 93, 320, 180)
    assert video.time_grid.end_T[-1] == 93 and video.frame_time_s[-1] == pytest.approx(92 * 1001 / 30000)
    assert (shorter.fps, shorter.num_frames, shorter.num_steps) == (Fraction(2997, 100), 73, 10)


def test_the_same_id_with_other_data_is_named(tmp_path):
    file = saved(tmp_path / "x.npy", np.ones((10, 3)))
    import_array(file, tmp_path / "store", "v", 25, 8)
    with pytest.raises(StoreError, match=r"video 'v' is in the store already, with another num_frames \(80, now 82\)"):
        import_array(file, tmp_path / "store", "v", 25, 8, num_frames=82)
    with pytest.raises(StoreError, match="with another sha256 of the file"):
        import_array(saved(tmp_path / "y.npy", np.zeros((10, 3))), tmp_path / "store", "v", 25, 8)
