"""The encoders that extraction is measured with: a cheap one, an expensive one, and one that sleeps as a GPU would work.

Shape legend: B clips, T frames (in) or steps (out), H x W pixels (in) or cells (out), C channels.
"""

import json
import time
from pathlib import Path

import torch

from features.encoders import tiny, vjepa2
from features.encode_stage import Encoder
from features.schema import EncoderSpec

# Of 16 frames of 128 x 128 px: on one core about three times what decoding 16 frames of 720p takes.
_EXPENSIVE = {
    "model_type": "vjepa2", "crop_size": 128, "frames_per_clip": 16, "patch_size": 16, "tubelet_size": 2, "hidden_size": 384,
    "num_attention_heads": 6, "num_hidden_layers": 5, "mlp_ratio": 4.0, "pred_hidden_size": 32, "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
_SLEEPING_CHANNELS, _SLEEPING_PX, _SLEEPING_FRAMES = 1024, 256, 64
_SLEEPING_PATCH_PX, _SLEEPING_TUBELET = 16, 2


def cheap() -> Encoder:
    """`tiny`: a fraction of what decoding costs."""
    return tiny.Encoder(tiny.Config())


def expensive(folder: Path) -> Encoder:
    """A V-JEPA 2 of 5 layers with random weights, in a checkpoint that is written below `folder`."""
    if not (folder / "config.json").exists():
        from transformers import VJEPA2Config, VJEPA2Model
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.manual_seed(0)
        VJEPA2Model(VJEPA2Config(**_EXPENSIVE)).save_pretrained(folder)
        processor = {"image_mean": list(vjepa2.IMAGENET_MEAN), "image_std": list(vjepa2.IMAGENET_STD)}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return vjepa2.Encoder(vjepa2.Config(weights=str(folder)))


class Sleeping:
    """Stands for a GPU of the speed `batch_s` seconds per call: takes no CPU time, and gives tokens that were made before, of the
    shape of V-JEPA 2 ViT-L (64 frames of 256 x 256 px give 32 x 16 x 16 x 1024). To be called by one thread, with `batch_clips`
    clips, as a GPU is.
    """

    def __init__(self, batch_clips: int, batch_s: float = 0.0):
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.batch_s = batch_s
        self.spec = EncoderSpec(
            family="sleeping", weights="none", digest="0" * 64, clip_frames=_SLEEPING_FRAMES, tubelet=_SLEEPING_TUBELET,
            patch_px=_SLEEPING_PATCH_PX, input_height=_SLEEPING_PX, input_width=_SLEEPING_PX, channels=_SLEEPING_CHANNELS,
            mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
        )
        cells = _SLEEPING_PX // _SLEEPING_PATCH_PX
        shape_BTHWC = (batch_clips, _SLEEPING_FRAMES // _SLEEPING_TUBELET, cells, cells, _SLEEPING_CHANNELS)
        self._tokens_BTHWC = torch.randn(shape_BTHWC, generator=torch.Generator().manual_seed(0))

    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, T, 256, 256, 3) -> float32 (B, T / 2, 16, 16, 1024)."""
        time.sleep(self.batch_s)
        return self._tokens_BTHWC[: len(frames_BTHWC3), : frames_BTHWC3.shape[1] // _SLEEPING_TUBELET]
