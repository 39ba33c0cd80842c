"""What `--against` names: a run, which predicts, or a prediction file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vjepa_loc.dataset import Dataset, read_predictions
from vjepa_loc.errors import MissingFileError, RunError, StoreMismatchError
from vjepa_loc.evaluation import OtherPredictions


def other_predictions(path: Path, dataset: Dataset, split: str, stores: Sequence[str] = ()) -> OtherPredictions:
    """The predictions of a split by the run in the folder `path`, or those in the file `path`.

    A run reads the stores at `stores` where they hold what it was trained on, else those that it was trained on. Raises
    MissingFileError or RunError for a path that is neither, and what reading or predicting raises.
    """
    if not path.exists():
        raise MissingFileError(f"--against {path}: expected a run folder or a prediction file, there is nothing")
    if not path.is_dir():
        return OtherPredictions(str(path), read_predictions(path, dataset))
    # Imported here, so that two files are compared without torch.
    from heads import load_run
    from heads.training.run_folder import INFO
    from heads.training.scoring import open_stores, predict_split

    if not (path / INFO).is_file():
        raise RunError(f"--against {path}: expected a run folder or a prediction file, got a folder without {INFO}")
    run = load_run(path)
    try:
        opened = open_stores(run, stores)
        run.check_stores(opened)
    except StoreMismatchError:
        opened = open_stores(run)
    answer = predict_split(run, dataset, opened, split)
    return OtherPredictions(run.path.name, answer.events, tuple(answer.missing))
