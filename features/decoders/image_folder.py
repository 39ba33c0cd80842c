"""A folder of numbered images as a video. Which image is which frame is said in `vjepa_loc.image_folder`."""

import platform
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from features.decoders.reader import Decoded, VideoInfo, VideoReader
from features.decoders.source import read_error
from features.schema import Damage
from vjepa_loc.errors import VideoError
from vjepa_loc.image_folder import numbered_images

MAX_GAPS = 100


def number_gaps(numbers: list[int]) -> list[dict[str, int]]:
    """Where numbers are left out, against their usual step (1, or 5 in a folder of every fifth frame)."""
    steps = np.diff(numbers)
    if not len(steps):
        return []
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    return [
        {"after_frame": int(index), "after_number": numbers[index], "before_number": numbers[index + 1]}
        for index in np.flatnonzero(steps != usual)[:MAX_GAPS]
    ]


class ImageFolderReader(VideoReader):
    """See the module's docstring. Times are made up from `nominal_fps`; left-out numbers count as damage.

    An image that cannot be read refuses the video: a skipped one would shift the number of every later frame.
    """

    def __init__(self, path: Path, nominal_fps: Fraction | None = None):
        if nominal_fps is None:
            raise VideoError(f"{path}: a folder of images has no frame rate; state `fps` for this video in the dataset")
        numbered = numbered_images(path)
        files = [file for _, file in numbered]
        self._gaps = number_gaps([number for number, _ in numbered])
        height, width = self._read(path, files[0]).shape[:2]
        info = VideoInfo(
            width=width, height=height, rotation=0, fps=nominal_fps, fps_nominal=True, variable_rate=False,
            num_frames_in_header=len(files), codec=files[0].suffix[1:].lower(), container="images",
            duration_s=float(len(files) / nominal_fps),
        )
        super().__init__(path, files, info, tick_s=0.0, times_are_guesses=True)

    def decoded(self) -> Iterator[Decoded]:
        for file in self._files:
            yield Decoded(None, None, False, lambda file=file: self._read(self.path, file))

    @staticmethod
    def _read(folder: Path, file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                shown = ImageOps.exif_transpose(image)
                if shown.mode.startswith("I"):
                    # 16 bit grey: Pillow's own conversion would clip instead of scale.
                    grey_HW = (np.asarray(shown).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    return np.repeat(grey_HW[..., None], 3, axis=-1)
                return np.array(shown.convert("RGB"))
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise read_error(error, f"{folder}: image {file.name} cannot be read ({error}); replace it") from None

    @property
    def damage(self) -> Damage | None:
        self._after_the_end()
        if not self._gaps:
            return None
        first = self._gaps[0]
        return Damage(
            num_errors=0,
            gaps=tuple(self._gaps),
            messages=(f"the numbers of the images jump from {first['after_number']} to {first['before_number']}",),
        )

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), "pillow": PIL.__version__}
