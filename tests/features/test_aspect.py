"""`fit = "aspect"`: every video on a grid of its own shape, from the file through the store and back."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from features.encoders import tiny as tiny_encoder
from features.encoders.vjepa2 import Config, Encoder
from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.reencode import reencode_clips
from features.schema import EncoderSpec, Encoding
from features.tensor_digest import tensor_digest
from features.store import open_store
from features.store_show import show_video
from tests.features.encoders.test_vjepa2_grids import by_reference, checkpoint
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, StoreMismatchError

# Size of the video -> (H, W), of the full grids of 16 cells: 1 x 16, 2 x 8, 3 x 5, 4 x 4, 5 x 3, 8 x 2, 16 x 1.
SIZES = {"wide": ((240, 144), (3, 5)), "tall": ((144, 240), (5, 3)), "square": ((144, 144), (4, 4)), "strip": ((640, 32), (1, 16))}


@pytest.fixture
def data(clip) -> Dataset:
    files = {
        name: clip(f"{name}.mp4", num_frames=13, width=size[0], height=size[1]) for name, (size, _) in SIZES.items()
    }
    return Dataset((), {name: Video(id=name, file=file) for name, file in files.items()})


@pytest.fixture
def weights(tmp_path):
    return checkpoint(tmp_path / "weights")


def decoded(file, cells) -> torch.Tensor:
    """uint8 frames in the encoder's size, by PyAV and one resize."""
    import av

    with av.open(str(file)) as container:
        frames = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    frames = torch.cat([frames, frames[-1:].expand(len(frames) % 2, -1, -1, -1)])
    size = (8 * cells[0], 8 * cells[1])
    return F.interpolate(frames.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)


@pytest.mark.parametrize("positions", ["extrapolate", "interpolate"])
def test_a_store_holds_videos_of_different_grids(data, weights, tmp_path, positions):
    folder, model = weights
    encoder = Encoder(Config(weights=str(folder), positions=positions))
    recipe = ExtractConfig(fit="aspect", threads=1, deadline_s=60)
    report = extract_dataset(data, tmp_path / "store", encoder, recipe)
    assert report.failed == {} and sorted(report.ids("done")) == sorted(SIZES)
    store = open_store(tmp_path / "store", verify="always")
    assert (store.encoding.fit, store.encoding.input_hw, store.encoding.positions) == ("aspect", (32, 32), positions)
    for name, (size, cells) in SIZES.items():
        video = store.video(name)
        assert video.grid == cells == video.space_grid.grid and (video.width, video.height) == size
        assert (video.space_grid.input_height, video.space_grid.input_width) == (8 * cells[0], 8 * cells[1])
        frames = decoded(data.videos[name].file, cells)
        # Clips 0..8 and 6..14; step 3 lies at the edge of both and stays with the earlier.
        expected = np.concatenate([
            by_reference(model, frames[0:8], positions), by_reference(model, frames[6:14], positions)[1:4],
        ])
        stored = video.read("tokens", out=np.empty(expected.shape, np.float32))
        _, scale_THW = video.read_codes()
        allowed_THWC = 0.51 * scale_THW[..., None].astype(np.float32) * video.std + 1e-4
        assert (np.abs(stored - expected) <= allowed_THWC).all(), name
        assert np.allclose(video.read("pool1")[:, 0, 0], stored.mean((1, 2)), atol=0.05)
        assert video.read("pool4").shape == (7, 4, 4, 48)

    assert store.verify().ok
    again = reencode_clips(data, store, encoder, recipe, 100)
    assert again.problems == () and len(again.clips) == 8 and {check.tolerance for check in again.clips} == {"exact"}
    facts = dict(show_video(store, "strip", data, tmp_path / "strip.png").facts)
    assert any("fit aspect" in fact for fact in facts.values()) and (tmp_path / "strip.png").is_file()

    other = Encoder(Config(weights=str(folder), positions="interpolate" if positions == "extrapolate" else "extrapolate"))
    with pytest.raises(StoreMismatchError, match="positions: '"):
        extract_dataset(data, tmp_path / "store", other, recipe)


def test_a_larger_input_is_a_larger_budget(data, weights, tmp_path):
    encoder = Encoder(Config(weights=str(weights[0]), input_px=48))
    extract_dataset(data, tmp_path / "store", encoder, ExtractConfig(fit="aspect", threads=1, deadline_s=60))
    # Of 36 cells: 5 x 7 is nearer to 240 : 144 than 4 x 9.
    assert open_store(tmp_path / "store").video("wide").grid == (5, 7)


def test_an_encoder_of_one_grid_is_refused():
    spec = tiny_encoder.Encoder(tiny_encoder.Config()).spec
    with pytest.raises(ConfigError, match=r"extract.fit: aspect gives every video its own grid, .* got tiny; choose stretch, letterbox or crop"):
        ExtractConfig(fit="aspect").encoding(spec)


def spec(**changes) -> EncoderSpec:
    return EncoderSpec(**{
        "family": "vjepa2", "weights": "w", "digest": "0" * 64, "clip_frames": 64, "tubelet": 2, "patch_px": 16, "input_height": 256,
        "input_width": 256, "channels": 1024, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "any_grid": True,
        "trained_hw": (256, 256), **changes,
    })


def test_native_squares_keep_the_fingerprint_they_always_had(weights):
    # Stores that were written through transformers' model are continued and read as what they are.
    for fit, fingerprint in [
        ("stretch", "1e6bc35a619d0a6b215207763ec79596bfdb47a5e13b946ac1c66dc4bb65a0a8"), ("crop", "dcc3007843c0cef08c678c3096ebc9ed3ae806d2b2de68b1a44f7a1d272f9b5a"),
    ]:
        for positions in ("extrapolate", "interpolate"):
            encoding = ExtractConfig(fit=fit).encoding(spec(positions=positions))
            assert encoding.fingerprint == fingerprint
            assert not {"positions", "trained_hw"} & set(encoding.to_dict())


def test_positions_are_part_of_the_encoding_where_they_matter():
    recipe = ExtractConfig(fit="aspect")
    plain, between = (recipe.encoding(spec(positions=positions)) for positions in ("extrapolate", "interpolate"))
    assert plain.fingerprint != between.fingerprint and "positions" not in plain.to_dict()
    assert between.diff(plain) == ["positions: 'interpolate' != 'extrapolate'", "trained_hw: [256, 256] != None"]
    assert Encoding.from_dict(between.to_dict()) == between
    assert recipe.with_encoding(between).encoding(spec(positions="interpolate")) == between
    # Interpolated positions depend on what they lie between.
    larger = recipe.encoding(spec(positions="interpolate", trained_hw=(384, 384)))
    assert larger.diff(between) == ["trained_hw: [384, 384] != [256, 256]"]
    # A square of another size: the same choice.
    sizes = {"input_height": 384, "input_width": 384}
    stretched = ExtractConfig().encoding(spec(**sizes))
    assert stretched.positions == "extrapolate" and stretched.input_hw == (384, 384)
    assert ExtractConfig().encoding(spec(**sizes, positions="interpolate")).trained_hw == (256, 256)
    with pytest.raises(ConfigError, match="trained_hw is for interpolated positions, and they need it"):
        Encoding.from_dict(plain.to_dict() | {"positions": "interpolate"})


def test_the_digest_is_of_the_tensors_as_transformers_names_them(weights):
    folder, model = weights
    assert Encoder(Config(weights=str(folder))).spec.digest == tensor_digest(model.encoder.state_dict())
