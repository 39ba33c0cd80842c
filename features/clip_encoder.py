"""Single clips of a video, encoded as they were for a store; stores nothing."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from features.clips import Clip, ClipAssembler, ClipRule
from features.decode_protocol import FrameBatch, Prepare
from features.decode_worker import DecodeWorker
from features.encode_stage import Encoder
from features.recipe import ExtractConfig
from features.schema import Encoding
from features.torch_threads import torch_threads
from vjepa_loc.dataset import Video


@dataclass(frozen=True, eq=False)
class StoredPart:
    """A clip and its tokens of the steps that are stored from it, (n, H, W, C) float32; decoded by these versions of libraries.

    n steps that are stored, H x W cells, C channels.
    """

    clip: Clip
    tokens_nHWC: torch.Tensor
    versions: dict[str, str]


class ClipEncoder:
    """A context manager: inside it torch has the threads that an extraction gives an encoder; leaving it ends the decoding process."""

    def __init__(self, encoding: Encoding, encoder: Encoder, config: ExtractConfig):
        self.encoder = encoder
        self.config = config
        self._rule = ClipRule.of(encoding)
        self._prepare = Prepare.of(encoding)
        self._stack = contextlib.ExitStack()
        self._worker = DecodeWorker(config.deadline_s)

    def __enter__(self) -> "ClipEncoder":
        self._stack.callback(self._worker.close)
        self._stack.enter_context(torch_threads(self.config.torch_threads(self.encoder.device.type != "cpu")))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def encode_clips(self, video: Video, start_steps: Iterable[int]) -> Iterator[StoredPart]:
        """The clips of `video` that start at these steps, in order.

        Decoding ends with the last of them; a clip that the video does not have is left out. Raises `VideoError` where the video
        cannot be decoded and `DecodeTimeoutError` where the decoder hangs; what `video` states is not compared.
        """
        wanted = set(start_steps)
        assembler = ClipAssembler(self._rule)
        stream = self._worker.stream_shared(video.file, self._prepare, self._rule.frames_held, self.config.decoder, video.fps)
        with contextlib.closing(stream):
            for message in stream:
                is_frames = isinstance(message, FrameBatch)
                clips = assembler.push(message.frame_numbers_n, message.frames_nhw3.numpy()) if is_frames else assembler.finish()
                for clip in clips:
                    if clip.start_step in wanted:
                        wanted.remove(clip.start_step)
                        yield StoredPart(clip, self._encode(clip)[clip.keep], message.versions)
                if not wanted:
                    return
                if is_frames:
                    self._worker.release(assembler.num_released)

    def _encode(self, clip: Clip) -> torch.Tensor:
        frames_THW3 = torch.from_numpy(clip.frames_THW3)
        if self.encoder.device.type != "cuda":
            return self.encoder.encode(frames_THW3[None])[0]
        # In a batch of the size that an extraction uses, so that not even the order of sums differs.
        shape = (self.config.resolved_batch_clips(on_gpu=True), *frames_THW3.shape)
        frames_BTHW3 = torch.zeros(shape, dtype=torch.uint8, device=self.encoder.device)
        frames_BTHW3[0] = frames_THW3
        return self.encoder.encode(frames_BTHW3)[0]
