import json
from datetime import datetime

import pytest
import torch

from features.schema import Encoding
from heads import load_run
from heads.training.config import TrainConfig
from heads.training.run_folder import (
    RunFolder, RunInfo, StoreRecord, check_encodings, newest_finished_run, open_recorded_stores,
)
from heads.training.standardise import Standardisation
from tests.token_stores import LABELS, MemoryStore, make_encoding
from vjepa_loc.errors import RunError, StoreMismatchError

NOON = datetime(2026, 11, 20, 12, 0, 0)


def make_info(**changes):
    encoding = make_encoding()
    values = dict(
        head="toy", head_config={}, train=TrainConfig(epochs=3), window_frames=256, labels=LABELS,
        stores=[StoreRecord(path="gone", fingerprint=encoding.fingerprint, encoding=encoding.to_dict())],
        specs=[dict(channels=8, levels=["tokens"], step_frames=2.0, clip_frames=16.0)],
        dataset=None, train_videos=["a"], val_videos=[], versions={},
    )
    return RunInfo(**(values | changes))


def make_run(runs, head="toy", finished=NOON):
    folder = RunFolder.create(runs, head, 0, NOON)
    folder.write_info(make_info(head=head))
    if finished is not None:
        folder.finish({}, finished)
    return folder


def test_names_say_head_time_and_seed_and_never_collide(tmp_path):
    names = [RunFolder.create(tmp_path / "runs", "detr", 3, NOON).path.name for _ in range(3)]
    assert names == ["detr-20261120-120000-seed3", "detr-20261120-120000-seed3-2", "detr-20261120-120000-seed3-3"]


def test_what_is_written_is_read_back(tmp_path):
    folder = make_run(tmp_path)
    assert folder.read_info() == make_info()
    assert folder.read_info().encodings == (make_encoding(),) and isinstance(folder.read_info().encodings[0], Encoding)
    standardisations = [Standardisation(torch.rand(8), torch.rand(8) + 0.1), Standardisation(torch.rand(4), torch.rand(4) + 0.1)]
    folder.save_standardisations(standardisations)
    for expected, got in zip(standardisations, folder.load_standardisations(), strict=True):
        assert torch.equal(expected.mean_C, got.mean_C) and torch.equal(expected.std_C, got.std_C)
    shared = torch.rand(3)
    folder.save_weights({"a": shared, "b": shared, "n": torch.tensor(4)})
    weights = folder.load_weights()
    assert torch.equal(weights["b"], shared) and weights["n"] == 4
    assert not list(folder.path.glob("*.partial")) and not list(folder.path.glob(".*"))


def test_the_newest_is_the_one_that_finished_last(tmp_path):
    make_run(tmp_path, "zz", datetime(2026, 11, 20, 13))
    newest = make_run(tmp_path, "aa", datetime(2026, 11, 20, 14))
    make_run(tmp_path, "mm", None)
    assert newest_finished_run(tmp_path) == newest.path


def test_no_run_and_no_finished_run_say_what_to_do(tmp_path):
    with pytest.raises(RunError, match="runs: no run found; train one with `python cli.py train-head --head=detr`, or give --run"):
        newest_finished_run(tmp_path / "runs")
    folder = make_run(tmp_path, finished=None)
    with pytest.raises(RunError, match=f"none of its 1 runs is finished; continue one .* --resume {folder.path}`"):
        newest_finished_run(tmp_path)
    with pytest.raises(RunError, match="is not finished; continue it with"):
        load_run(folder.path)


def test_a_store_that_is_gone_is_named(tmp_path):
    record = StoreRecord(path=str(tmp_path / "features"), fingerprint="0", encoding={})
    with pytest.raises(RunError, match="run r1 was trained on the store .*features, which cannot be opened .* with --store"):
        open_recorded_stores(tmp_path / "r1", [record])


def test_another_encoding_is_refused_with_both_values(tmp_path):
    store = MemoryStore([], make_encoding(frame_step=3, fit="crop"), "other/features")
    check_encodings(tmp_path, [make_encoding()], [MemoryStore([])])
    with pytest.raises(StoreMismatchError, match="store other/features holds another encoding") as caught:
        check_encodings(tmp_path, [make_encoding()], [store])
    assert "fit: 'stretch' != 'crop'" in str(caught.value) and "frame_step: 1 != 3" in str(caught.value)


def test_a_folder_that_is_no_run_or_a_broken_one_is_one_line(tmp_path):
    with pytest.raises(RunError, match="is no run folder: it has no run.json"):
        load_run(tmp_path)
    folder = make_run(tmp_path)
    values = json.loads((folder.path / "run.json").read_text())
    wrong = json.dumps(values | {"window_frames": "x"})
    messages = {"{": "cannot be read", "[]": "expected a run of version 1, got None", wrong: "window_frames"}
    for broken, message in messages.items():
        (folder.path / "run.json").write_text(broken)
        with pytest.raises(RunError, match=message):
            folder.read_info()


def test_weights_that_cannot_be_read_or_do_not_fit_are_one_line(toy_head, tmp_path):
    folder = make_run(tmp_path)
    with pytest.raises(RunError, match="weights.safetensors: cannot be read"):
        load_run(folder.path)
    folder.save_weights({"classify.weight": torch.zeros(2, 2)})
    with pytest.raises(RunError, match="its weights do not fit the head 'toy' of this version") as caught:
        load_run(folder.path)
    assert "\n" not in str(caught.value)


def test_a_runs_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match="runs folder .*runs: cannot be written .*choose another with --runs"):
        RunFolder.create(tmp_path / "runs", "toy", 0, NOON)
