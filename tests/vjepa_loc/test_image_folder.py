"""Which image of a folder is which frame."""

import pytest

from vjepa_loc.errors import VideoError
from vjepa_loc.image_folder import name_number, numbered_images


def fill(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_images_are_ordered_by_number_not_by_name(tmp_path):
    folder = fill(tmp_path / "frames", "cart_9.JPG", "cart_10.jpg", "cart_0011.jpg", ".cart_1.jpg", "notes.txt")
    assert [(number, path.name) for number, path in numbered_images(folder)] == [
        (9, "cart_9.JPG"),
        (10, "cart_10.jpg"),
        (11, "cart_0011.jpg"),
    ]


@pytest.mark.parametrize(
    ("name", "number"), [("000140.txt", 140), ("cam2_frame_007.png", 7), ("12_rgb.jpg", 12), ("frame.png", None)]
)
def test_the_last_number_of_a_name_counts(tmp_path, name, number):
    assert name_number(tmp_path / name) == number


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], r"expected numbered images \(.bmp, .jpeg, .*\), found none"),
        (["1.png", "cover.png"], "cover.png: expected a number in the image's name, found none"),
        (["7.png", "007.png"], "007.png and 7.png have the same number, remove one"),
        (["a_1.png", "b_2.png"], "the images of one video, found a_1.png and b_2.png; use one folder per video"),
    ],
)
def test_folders_that_are_no_video_are_refused(tmp_path, names, message):
    with pytest.raises(VideoError, match=message):
        numbered_images(fill(tmp_path / "frames", *names))


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(VideoError, match="expected a folder of numbered images, found nothing"):
        numbered_images(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(VideoError, match="expected a folder of numbered images, found a file"):
        numbered_images(tmp_path / "file")
