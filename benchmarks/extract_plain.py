"""Extraction as it is usually written: one loop, clip by clip, each library with its defaults.

decord's `get_batch` for the clip's frames, `F.interpolate` of the uint8 pictures (faster than of floats), the encoder, and a
chunk of a zarr-python array, allocated for the whole video and not compressed (compressing with the default took half of the
loop's time). Nothing overlaps but what the libraries do with their threads. Shape legend: n clips, T frames or steps, H x W, C.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from extract_stages import Work


def extract_plainly(work: Work, folder: Path) -> None:
    """Every video as an array (n, T, H, W, C) float16 below `folder`, overlapping clips stored one by one."""
    # Late: decord, which has no wheels for every system.
    import decord
    import zarr

    encoding = work.encoding
    num_frames, stride = encoding.clip_frames, encoding.clip_frames - encoding.overlap
    root = zarr.open_group(folder, mode="w")
    for video in work.videos:
        reader = decord.VideoReader(str(video.file))
        starts = list(range(0, len(reader) - num_frames + 1, stride))
        if starts[-1] + num_frames < len(reader):
            starts.append(len(reader) - num_frames)
        array = None
        for number, start in enumerate(starts):
            frames_THW3 = reader.get_batch(range(start, start + num_frames)).asnumpy()
            frames_T3HW = torch.from_numpy(frames_THW3).permute(0, 3, 1, 2)
            small_T3HW = F.interpolate(frames_T3HW, size=encoding.input_hw, mode="bilinear", antialias=True)
            tokens_THWC = work.encoder.encode(small_T3HW.permute(0, 2, 3, 1)[None])[0].numpy()
            if array is None:
                shape = (len(starts), *tokens_THWC.shape)
                array = root.create_array(video.id, shape=shape, chunks=(1, *shape[1:]), dtype="float16", compressors=None)
            array[number] = tokens_THWC.astype(np.float16)
