"""Finds a checkpoint in the layout of transformers (config.json, *.safetensors), in a local folder or on the Hugging Face hub.

Older repositories hold pickles (pytorch_model.bin): they are taken where there is nothing else, by torch's loader that runs
no code.
Every failure is one line (`WeightsError`) that says what was looked for and what to do; without a network it comes in seconds.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vjepa_loc.errors import WeightsError

HUB_TIMEOUT_S = 10.0
CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
# A whole checkpoint, and the index of one in parts; the first that is there counts.
TENSOR_FILES = ((SINGLE_FILE, INDEX_FILE), (PICKLE_FILE, PICKLE_INDEX_FILE))
# Names of the file that holds mean and std; where one file describes several processors, the keys of those that may be meant.
PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
PROCESSOR_KEYS = ("video_processor", "image_processor")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NEEDS_NONE = "`make demo` needs no weights"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a config and safetensors; `revision` is the commit of the hub it came from, if it did."""

    folder: Path
    weights: str
    revision: str | None

    def config(self) -> dict[str, Any]:
        return self._json(CONFIG_FILE)

    def processor(self) -> dict[str, Any]:
        """The video processor's settings; empty where the checkpoint has none."""
        for name in PROCESSOR_FILES:
            if (self.folder / name).is_file():
                values = self._json(name)
                return next((values[key] for key in PROCESSOR_KEYS if isinstance(values.get(key), dict)), values)
        return {}

    def tensors(self, name_in_part: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
        """The tensors for which `name_in_part(name)` is a name, under that name; the others are never read."""
        tensors: dict[str, torch.Tensor] = {}
        for file in self._tensor_files():
            try:
                read = _read_pickle if file.suffix == ".bin" else _read_safetensors
                tensors.update(read(file, name_in_part))
            except WeightsError:
                # Of `name_in_part`: it is an OSError too.
                raise
            except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise WeightsError(f"{file}: cannot be read ({reason}); download the checkpoint again") from None
        return tensors

    def _tensor_files(self) -> list[Path]:
        for single, index in TENSOR_FILES:
            if (self.folder / single).is_file():
                return [self.folder / single]
            if (self.folder / index).is_file():
                return self._parts(index)
        return [self.folder / SINGLE_FILE]

    def _parts(self, index: str) -> list[Path]:
        files = self._json(index).get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
            raise WeightsError(
                f"{self.folder / index}: expected weight_map with the file of every tensor, got {str(files)[:80]}; download the checkpoint again"
            )
        return [self.folder / name for name in sorted(set(files.values()))]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.folder / name}: cannot be read ({error}); download the checkpoint again") from None
        if not isinstance(values, dict):
            raise WeightsError(f"{self.folder / name}: expected a JSON object, got {str(values)[:80]}; download the checkpoint again")
        return values


def _read_safetensors(file: Path, name_in_part: Callable[[str], str | None]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():
            if (short := name_in_part(name)) is not None:
                yield short, tensors.get_tensor(name)


def _read_pickle(file: Path, name_in_part: Callable[[str], str | None]) -> Iterator[tuple[str, torch.Tensor]]:
    """`weights_only`: the pickle may hold tensors and plain values, and nothing in it is run."""
    found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise TypeError("expected names and their tensors")
    for name, tensor in found.items():
        if (short := name_in_part(name)) is not None:
            yield short, tensor


def find_checkpoint(weights: str, revision: str | None = None) -> Checkpoint:
    """`weights` is a local folder or `owner/name` on the hub; what is in the hub's local cache is not asked for again.

    Raises WeightsError where the checkpoint is nowhere to be had.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise WeightsError(f"encoder.revision: expected none for the local folder {folder}, got {revision!r}; remove it")
        if missing := _missing_file(folder):
            raise WeightsError(f"encoder.weights: folder {folder}: expected {missing} in it, found none; point at a folder of transformers")
        return Checkpoint(folder, weights, None)
    if not HUB_ID.fullmatch(weights):
        raise WeightsError(
            f"encoder.weights: expected a folder or a hub id such as facebook/vjepa2-vitl-fpc64-256, got {weights!r}, "
            f"which is neither; {NEEDS_NONE}"
        )
    folder = _cached(weights, revision) or _downloaded(weights, revision)
    return Checkpoint(folder, weights, folder.name)


def _missing_file(folder: Path) -> str | None:
    if not (folder / CONFIG_FILE).is_file():
        return CONFIG_FILE
    if not any((folder / name).is_file() for names in TENSOR_FILES for name in names):
        return SINGLE_FILE
    return None


def _cached(weights: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(weights, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return None if _missing_file(folder) else folder


def _downloaded(weights: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    wanted = [CONFIG_FILE, *PROCESSOR_FILES, "*.safetensors", INDEX_FILE]
    try:
        # Asked first, because it gives up after one timeout where a download tries again and again.
        commit = HfApi().model_info(weights, revision=revision, timeout=HUB_TIMEOUT_S).sha
        folder = Path(snapshot_download(weights, revision=commit, allow_patterns=wanted))
        if _missing_file(folder):
            folder = Path(snapshot_download(weights, revision=commit, allow_patterns=["pytorch_model*.bin", PICKLE_INDEX_FILE]))
    except Exception as error:
        # The hub's client raises the classes of whichever HTTP library it was built on.
        at = f" at revision {revision}" if revision else ""
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(
            f"encoder.weights: {weights}{at} is not in the local cache and the hub cannot give it ({reason}); where there is a "
            f"network, run `hf download {weights}`, or copy the checkpoint here and set encoder.weights=/its/folder; {NEEDS_NONE}"
        ) from None
    if missing := _missing_file(folder):
        raise WeightsError(f"encoder.weights: {weights}: expected {missing} in the repository, found none; choose another checkpoint")
    return folder
