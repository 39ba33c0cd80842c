"""Other people's features become a store that verifies."""

import numpy as np
import pytest

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
    assert import_array(file, tmp_path / "store", "v", fps=25, frames_per_step=4)
    assert not import_array(file, tmp_path / "store", "v", fps=25, frames_per_step=4)
    store = open_store(tmp_path / "store")
    video = store.video("v")
    assert store.verify().ok and (video.num_frames, video.num_steps, video.fps) == (400, 100, 25)
    assert video.grid == (1, 1) if len(shape) == 2 else (3, 4)
    assert np.allclose(video.read("tokens").reshape(shape), features, atol=0.05)
    assert video.time_grid.start_T[3] == 12 and video.space_grid.grid == video.grid


def test_what_cannot_be_imported_is_said(tmp_path):
    def attempt(error, message, path, **changes):
        with pytest.raises(error, match=message):
            import_array(path, tmp_path / "store", "v", **({"fps": 25, "frames_per_step": 4} | changes))

    good = saved(tmp_path / "good.npy", np.ones((5, 8)))
    attempt(MissingFileError, "there is no file .*none.npy", tmp_path / "none.npy")
    attempt(ConfigError, r"expected numbers of shape \(T, C\) or \(T, H, W, C\), got float64 \(5,\)", saved(tmp_path / "a.npy", np.ones(5)))
    attempt(ConfigError, "expected numbers of shape", saved(tmp_path / "b.npy", np.array([["x"]])))
    (tmp_path / "c.npy").write_text("no numbers")
    attempt(ConfigError, "c.npy is not an .npy file of numbers", tmp_path / "c.npy")
    attempt(ConfigError, "expected a positive fps and at least one frame per step, got 0 and 4", good, fps=0)
    attempt(StoreError, "step 1 has a token that is not finite", saved(tmp_path / "d.npy", np.array([[1.0], [np.nan]])))
    import_array(good, tmp_path / "good", "v", 25, 4)
    with pytest.raises(StoreMismatchError, match="frame_step: 4 != 8"):
        import_array(good, tmp_path / "good", "w", 25, 8)
