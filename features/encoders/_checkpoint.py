"""Finds a checkpoint in the layout of transformers (config.json, *.safetensors), in a local folder or on the Hugging Face hub.

Every failure is one line (`WeightsError`) that says what was looked for and what to do; without a network it comes in seconds.
"""

import json
import re
from collections.abc import Callable
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
# Newer and older names of the file that holds mean and std.
PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
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
                return self._json(name)
        return {}

    def tensors(self, name_in_part: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
        """The tensors for which `name_in_part(name)` is a name, under that name; the others are never read."""
        files = sorted(set(self._json(INDEX_FILE)["weight_map"].values())) if self._is_sharded() else [SINGLE_FILE]
        tensors: dict[str, torch.Tensor] = {}
        for file in files:
            try:
                with safe_open(self.folder / file, framework="pt") as shard:
                    for name in shard.keys():
                        if (short := name_in_part(name)) is not None:
                            tensors[short] = shard.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise WeightsError(f"{self.folder / file}: cannot be read ({error}); download the checkpoint again") from None
        return tensors

    def _is_sharded(self) -> bool:
        return not (self.folder / SINGLE_FILE).is_file()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.folder / name}: cannot be read ({error}); download the checkpoint again") from None


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
    if not any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
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
