"""From a video file to dequantised tokens of `vjepa2`, against a way that shares nothing with ours but PyAV and transformers."""

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from features.encoders.vjepa2 import Config, Encoder
from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.store import open_store
from vjepa_loc.dataset import Dataset, Video

SMALL = {
    "patch_size": 8, "crop_size": 32, "frames_per_clip": 8, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
    "pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1,
}


def independent_pixels(path, side: int) -> torch.Tensor:
    """Normalised pixels (frames, 3, side, side) as ENCODE.md section 2 writes them down: shorter side to 8/7, then the centre."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    height, width = frames.shape[1:3]
    short = int(side * 256 / 224)
    size = (short, int(width * short / height)) if height <= width else (int(height * short / width), short)
    resized = F.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    cropped = resized[:, :, top : top + side, left : left + side].float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (cropped - (mean * 255)[:, None, None]) / (std * 255)[:, None, None]


@pytest.mark.parametrize(
    ("settings", "num_frames", "clips"),
    [
        # 13 frames are 14 with the last repeated: clips 0..8 and 6..14; step 3 lies at the edge of both and stays with the earlier.
        (SMALL, 13, [(0, 8, 0, 4), (6, 14, 1, 4)]),
        pytest.param({}, 4, [(0, 4, 0, 2)], marks=pytest.mark.slow, id="the full ViT-L"),
    ],
)
def test_stored_tokens_equal_an_independent_way(clip, tmp_path, settings, num_frames, clips):
    from transformers import VJEPA2Config, VJEPA2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VJEPA2Model(VJEPA2Config(**settings)).eval()
    model.save_pretrained(tmp_path / "weights")
    path = clip("a.mp4", num_frames=num_frames)
    encoder = Encoder(Config(weights=str(tmp_path / "weights")))
    report = extract_dataset(
        Dataset((), {"a": Video(id="a", file=path)}), tmp_path / "store", encoder, ExtractConfig(fit="crop", threads=1, deadline_s=60)
    )
    assert report.to_dict() == {"done": ["a"], "skipped": [], "failed": {}}

    side = model.config.crop_size
    cells = side // model.config.patch_size
    pixels = independent_pixels(path, side)
    pixels = torch.cat([pixels, pixels[-1:].expand(len(pixels) % 2, -1, -1, -1)])
    expected = []
    for start, stop, keep_start, keep_stop in clips:
        with torch.no_grad():
            tokens = model.encoder(pixels[None, start:stop]).last_hidden_state
        expected.append(tokens.reshape(-1, cells, cells, tokens.shape[-1])[keep_start:keep_stop])
    expected = torch.cat(expected).numpy()

    video = open_store(tmp_path / "store").video("a")
    stored = video.read("tokens", out=np.empty(expected.shape, np.float32))
    _, scale_THW = video.read_codes()
    # Half a code, and what two orders of float32 arithmetic may differ by.
    allowed_THWC = 0.51 * scale_THW[..., None].astype(np.float32) * video.std + 1e-4
    assert (np.abs(stored - expected) <= allowed_THWC).all()
