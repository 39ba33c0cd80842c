"""`repair` extracts again exactly what `verify` finds wrong, restores what follows from the encoding, and says what it did."""

from pathlib import Path

import pytest

from features.encoders.tiny import Encoder
from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.repair import RepairReport, repair_store
from features.store import open_store
from features.verify import verify_store
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreMismatchError

pytestmark = pytest.mark.usefixtures("kept_decoding_processes")

RECIPE = ExtractConfig(threads=1, deadline_s=30)


class Made:
    """A store of four videos, and what its bytes were."""

    def __init__(self, folder: Path, files: list[Path], encoder: Encoder):
        self.path, self.encoder = folder / "store", encoder
        self.data = Dataset((), {file.stem: Video(id=file.stem, file=file) for file in files})
        extract_dataset(self.data, self.path, encoder, RECIPE)
        self.records = self.commits()
        self.arrays = self.generation_files()

    def commits(self) -> dict[str, bytes]:
        return {video_id: (self.path / f"commits/{video_id}.json").read_bytes() for video_id in self.data.videos}

    def generation_files(self) -> dict[str, dict]:
        store = open_store(self.path)
        return {video_id: store.commit_of(video_id).generation_files for video_id in self.data.videos}

    def generation(self, video_id: str) -> Path:
        return self.path / "tokens.zarr" / open_store(self.path).commit_of(video_id).path

    def repair(self, videos: list[str] | None = None, data: Dataset | None = None, **recipe) -> RepairReport:
        return repair_store(data or self.data, self.path, self.encoder, RECIPE.model_copy(update=recipe), videos)


@pytest.fixture
def made(clip, tmp_path, tiny) -> Made:
    return Made(tmp_path, [clip(f"{name}.mp4", num_frames=20) for name in "abcd"], tiny)


def flip(path: Path, place: int = 100) -> None:
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1
    path.write_bytes(raw)


def test_exactly_the_damaged_videos_are_extracted_again(made):
    flip(made.generation("a") / "tokens/c/0/0/0/0")
    (made.generation("b") / "pool2/zarr.json").unlink()
    record = made.path / "commits/c.json"
    record.write_bytes(record.read_bytes()[:-9])
    report = made.repair()
    assert report.ok and sorted(report.extracted.ids("done")) == ["a", "b", "c"]
    assert verify_store(made.path).ok and made.commits()["d"] == made.records["d"]
    assert made.generation_files() == made.arrays, "the same tokens to the bit"
    lines = report.summary().splitlines()
    assert lines[-1] == "0 files restored, 3 videos extracted again, 0 failed, 0 left"
    assert any(line.startswith("done b: ") and "pool2/zarr.json: unreadable" in line for line in lines)
    assert any(line.startswith("done c: commits/c.json: ") for line in lines)
    assert made.repair().to_dict() == {"restored": [], "done": [], "skipped": [], "failed": {}, "left": []}


def test_only_the_videos_that_were_asked_for(made):
    for video_id in "ab":
        flip(made.generation(video_id) / "mean/c/0")
    flip(made.path / "commits/c.json")
    assert made.repair(["b"]).extracted.ids("done") == ["b"]
    assert verify_store(made.path).video_ids == ["a"]
    assert made.repair(["c"]).extracted.ids("done") == ["c"]
    assert made.repair().extracted.ids("done") == ["a"] and verify_store(made.path).ok


@pytest.mark.parametrize("name", ["zarr.json", "videos/zarr.json", "videos/a/zarr.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flipped", "gone"])
def test_what_lies_above_the_videos_is_restored_without_an_extraction(made, name, damage):
    file = made.path / "tokens.zarr" / name
    raw = file.read_bytes()
    damage(file)
    report = made.repair()
    assert report.restored == (f"tokens.zarr/{name}",) and report.extracted.outcomes == []
    assert file.read_bytes() == raw and made.commits() == made.records and verify_store(made.path).ok


def test_a_root_is_not_restored_with_another_encoding(made):
    flip(made.path / "tokens.zarr/zarr.json")
    with pytest.raises(StoreMismatchError, match="made with another encoder or recipe .* was [0-9a-f]{8}, this one's is [0-9a-f]{8}"):
        made.repair(fit="crop")
    assert [problem.file for problem in verify_store(made.path).problems] == ["tokens.zarr/zarr.json"]


def test_a_damaged_video_whose_file_has_changed_is_redone_on_request_only(made, clip):
    flip(made.generation("a") / "tokens/c/0/0/0/0")
    clip("a.mp4", num_frames=24)
    report = made.repair()
    assert not report.ok and "and its file" in report.extracted.failed["a"] and "bytes when it was stored, now" in report.extracted.failed["a"]
    assert made.commits() == made.records
    assert made.repair(on_mismatch="redo").extracted.ids("done") == ["a"]
    assert open_store(made.path).video("a").num_frames == 24


def test_what_no_extraction_can_help_is_left_and_said(made):
    (made.path / "commits/readme.txt").touch()
    flip(made.generation("a") / "mean/c/0")
    flip(made.path / "commits/b.json")
    without = Dataset((), {"c": made.data.videos["c"]})
    report = made.repair(data=without)
    assert not report.ok and "not in the dataset" in report.extracted.failed["a"]
    assert sorted(problem.file for problem in report.left) == ["commits/b.json", "commits/readme.txt"]
    assert made.commits()["a"] == made.records["a"]
    nowhere = Dataset((), {"a": Video(id="a")})
    assert "names no `file`" in made.repair(["a"], nowhere).extracted.failed["a"]
