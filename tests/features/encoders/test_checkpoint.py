"""Where tensors and processors are found in a checkpoint's folder, and what is refused."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from features.encoders._checkpoint import Checkpoint, find_checkpoint
from vjepa_loc.errors import WeightsError

A, B = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.float16)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "some"}')
    return tmp_path


def read(folder: Path, part=lambda name: name) -> dict[str, torch.Tensor]:
    return find_checkpoint(str(folder)).tensors(part)


def assert_both(tensors: dict[str, torch.Tensor]) -> None:
    assert set(tensors) == {"a", "b"} and torch.equal(tensors["a"], A)
    assert torch.equal(tensors["b"], B) and tensors["b"].dtype == torch.float16


def test_a_pickle_is_read_where_there_is_nothing_else(folder):
    torch.save({"a": A, "b": B}, folder / "pytorch_model.bin")
    assert_both(read(folder))
    assert set(read(folder, lambda name: "c" if name == "b" else None)) == {"c"}
    save_file({"a": A + 1, "b": B}, folder / "model.safetensors")
    assert torch.equal(read(folder)["a"], A + 1)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_parts_are_put_together(folder, kind):
    stem, save = ("model", save_file) if kind == "safetensors" else ("pytorch_model", torch.save)
    files = {"a": f"{stem}-00001-of-00002.{kind}", "b": f"{stem}-00002-of-00002.{kind}"}
    save({"a": A}, folder / files["a"])
    save({"b": B}, folder / files["b"])
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": files}))
    assert_both(read(folder))
    (folder / files["b"]).unlink()
    with pytest.raises(WeightsError, match=f"00002-of-00002.{kind}: cannot be read .* download the checkpoint again"):
        read(folder)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [Attack(), [1, 2], {"state_dict": {"a": A}}, None], ids=["code", "list", "nested", "cut"])
def test_pickles_that_are_no_tensors_are_refused_and_run_nothing(folder, content, monkeypatch):
    monkeypatch.chdir(folder)
    torch.save(content if content is not None else {"a": A}, folder / "pytorch_model.bin")
    if content is None:
        (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:300])
    with pytest.raises(WeightsError, match="pytorch_model.bin: cannot be read") as caught:
        read(folder)
    assert "\n" not in str(caught.value) and not (folder / "ran").exists()


def test_a_folder_without_tensors_is_refused(folder):
    with pytest.raises(WeightsError, match="expected model.safetensors in it, found none"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"preprocessor_config.json": {"image_mean": 1}}, {"image_mean": 1}),
        ({"preprocessor_config.json": {"image_mean": 1}, "video_preprocessor_config.json": {"image_mean": 2}}, {"image_mean": 2}),
        ({"processor_config.json": {"image_processor": {"image_mean": 3}, "processor_class": "P"}}, {"image_mean": 3}),
        ({"processor_config.json": {"image_processor": {"a": 3}, "video_processor": {"a": 4}}}, {"a": 4}),
        ({"preprocessor_config.json": {"a": 1}, "processor_config.json": {"video_processor": {"a": 4}}}, {"a": 1}),
    ],
    ids=["none", "older", "newer", "combined", "combined-video", "own-file-first"],
)
def test_where_mean_and_deviation_stand(folder, files, expected):
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    assert Checkpoint(folder, "w", None).processor() == expected


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": ["a"]}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_names_no_files_is_one_line(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match="model.safetensors.index.json: expected .* download the checkpoint again") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_json_that_is_no_object_is_one_line(folder):
    (folder / "config.json").write_text("[1]")
    (folder / "preprocessor_config.json").write_text("[]")
    with pytest.raises(WeightsError, match="preprocessor_config.json: expected a JSON object, got"):
        Checkpoint(folder, "w", None).processor()
    with pytest.raises(WeightsError, match=r"config.json: expected a JSON object, got \[1\]"):
        Checkpoint(folder, "w", None).config()


def test_a_refusal_of_the_reader_s_own_passes_through(folder):
    save_file({"a": A}, folder / "model.safetensors")

    def refuse(name: str) -> str:
        raise WeightsError("twice")

    with pytest.raises(WeightsError, match="^twice$"):
        read(folder, refuse)
