import hashlib

import numpy as np
import pytest
from PIL import Image

from features.decode import open_video
from vjepa_loc.errors import VideoError


@pytest.fixture
def folder(tmp_path, draw_number):
    """Writes numbered images under the given names."""

    def write(*names: str, size=(144, 64)):
        (tmp_path / "images").mkdir(exist_ok=True)
        for index, name in enumerate(names):
            Image.fromarray(draw_number(index, *size)).save(tmp_path / "images" / name)
        return tmp_path / "images"

    return write


def test_images_are_frames_in_the_order_of_their_numbers(folder, read_number):
    path = folder("img_2.png", "img_9.png", "img_10.png", "img_11.jpg")
    (path / "readme.txt").write_text("2 is the first")
    reader = open_video(path, nominal_fps=12.5)
    assert [read_number(frame.rgb_HW3) for frame in reader] == [0, 1, 2, 3]
    assert reader.info.fps == 12.5 and reader.info.fps_nominal and reader.times_made_up
    np.testing.assert_allclose(reader.frame_time_s, np.arange(4) / 12.5)


def test_left_out_numbers_are_reported(folder):
    reader = open_video(folder("1.png", "2.png", "3.png", "7.png", "8.png"), nominal_fps=25)
    assert len(list(reader)) == 5
    assert reader.damage.gaps == ({"after_frame": 2, "after_number": 3, "before_number": 7},)
    assert reader.damage.num_errors == 0 and reader.damage.messages == ("the numbers of the images jump from 3 to 7",)


def test_every_fifth_frame_is_no_gap(folder):
    reader = open_video(folder("0.png", "5.png", "10.png", "15.png"), nominal_fps=5)
    assert len(list(reader)) == 4 and reader.damage is None


def test_the_hash_covers_names_and_bytes(folder):
    path = folder("1.png", "2.png")
    reader = open_video(path, nominal_fps=25)
    list(reader)
    expected = hashlib.sha256()
    for name in ("1.png", "2.png"):
        content = (path / name).read_bytes()
        expected.update(f"{name}\n{len(content)}\n".encode() + content)
    assert reader.sha256 == expected.hexdigest()
    assert reader.source.size == sum((path / name).stat().st_size for name in ("1.png", "2.png"))


def test_kinds_of_images(tmp_path):
    grey_HW = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey_HW).save(tmp_path / "0.png")
    Image.fromarray(grey_HW.astype(np.uint16) << 8).save(tmp_path / "1.png")
    Image.fromarray(np.dstack([grey_HW, grey_HW, grey_HW, np.zeros_like(grey_HW)])).save(tmp_path / "2.png")
    turned = Image.fromarray(np.dstack([grey_HW.T] * 3))
    exif = turned.getexif()
    exif[0x0112] = 5
    turned.save(tmp_path / "3.png", exif=exif)
    for frame in open_video(tmp_path, nominal_fps=25):
        assert np.array_equal(frame.rgb_HW3, np.dstack([grey_HW] * 3)), frame.index


def test_a_folder_needs_a_rate(folder):
    with pytest.raises(VideoError, match="images: a folder of images has no frame rate; state `fps`"):
        open_video(folder("1.png"))


def test_a_folder_without_images_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="expected numbered images"):
        open_video(tmp_path, nominal_fps=25)


def test_images_of_another_size_are_refused(folder):
    path = folder("1.png", "2.png")
    Image.new("RGB", (20, 10)).save(path / "3.png")
    with pytest.raises(VideoError, match="frame 2: expected 144x64 pixels as in the first frame, got 20x10"):
        list(open_video(path, nominal_fps=25))


def test_a_broken_image_refuses_the_video_by_its_name(folder):
    path = folder("1.png", "2.png")
    (path / "2.png").write_bytes((path / "2.png").read_bytes()[:60])
    with pytest.raises(VideoError, match="images: image 2.png cannot be read"):
        list(open_video(path, nominal_fps=25))
