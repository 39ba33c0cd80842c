"""How fast the token store is: against `np.memmap` and raw `write()` of the same tokens, and against other libraries.

    python benchmarks/store.py [--steps 2048] [--rounds 9] [--only reading,cold] [--folder DIR] [--json]

prints two Markdown tables, the measures with their bars and the readers side by side, or one JSON object. One process for
all that is compared warm, interleaved rounds, the median of the ratios; tokens of the ViT-L shape, made for the purpose.
GB/s are fp16-equivalent: one step of 16 x 16 x 1024 tokens counts 524,288 bytes whatever it takes on disk. What each line
means is in docs/benchmarks.md. The machine should do nothing else meanwhile. Linux only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from store_table import STEP_BYTES, Reader, Row, bars_table, describe, machine, progress, readers_table
from vjepa_loc.errors import VjepaLocError

_FEWEST_STEPS, _MOST_VIDEOS = 64, 60_000
# In this order: cold before anything is mapped, loading before there are threads that a fork would not survive.
GROUPS = ("cold", "reading", "loading", "writing", "listing", "peers")
# What lies on the disk at once, in fp16 sizes: .npy, float16 and int8 stores with pyramids, HDF5 of both.
_DISK_SHARE = 5.0
# What is read warm at once: .npy, float16 and int8 stores.
_MEMORY_SHARE = 3.0


def main() -> int:
    options = _options()
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="vjepa_loc_benchmark_", dir=options.folder) as folder:
            rows, readers = measure(Path(folder), options)
    except (VjepaLocError, OSError) as error:
        progress(f"error: {error}")
        return 2
    except subprocess.CalledProcessError as error:
        program = Path(error.cmd[1]).name
        progress(f"error: a process of the benchmark ({program}) ended with code {error.returncode}; its message stands above")
        return 2
    about = machine()
    if options.json:
        given = {"steps": options.steps, "rounds": options.rounds, "videos": options.videos, "groups": options.only}
        print(json.dumps({
            "machine": about, "options": given, "rows": [row.to_dict() for row in rows],
            "readers": [reader.to_dict() for reader in readers],
        }, indent=1))
        return 0
    size, taken = options.steps * STEP_BYTES / 1e9, time.perf_counter() - started
    print(describe(about))
    print(f"{options.steps} steps ({size:.2f} GB as fp16), {options.rounds} rounds, {taken:.0f} s.\n\n{bars_table(rows)}")
    if readers:
        print(f"\nThe same reads through other libraries, as multiples of np.memmap fp16:\n\n{readers_table(readers)}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[Row], list[Reader]]:
    """Rows with bars, and the readers that are compared side by side."""
    # Late: wrong options are answered at once.
    import torch

    from store_cold import measure_cold
    from store_data import make_tokens
    from store_listing import measure_listing
    from store_loading import measure_loading
    from store_peers import measure_peers
    from store_reading import measure_reading
    from store_writing import measure_writing

    # The readers are compared on one thread; the loader starts its own.
    torch.set_num_threads(1)
    rows: list[Row] = []
    readers: list[Reader] = []
    rounds = options.rounds
    tokens = None
    if set(options.only) - {"writing", "listing"}:
        progress(f"making {options.steps} steps of tokens")
        tokens = make_tokens(folder, options.steps)
    for group in (group for group in GROUPS if group in options.only):
        progress(group)
        if group == "cold":
            rows += measure_cold(tokens, rounds)
        elif group == "reading":
            more, found = measure_reading(tokens, rounds)
            rows, readers = rows + more, readers + found
        elif group == "loading":
            rows += measure_loading(tokens, rounds)
        elif group == "writing":
            rows += measure_writing(folder, options.steps // 2, rounds)
        elif group == "listing":
            rows += measure_listing(folder, options.videos, rounds)
        else:
            readers += measure_peers(tokens, min(rounds, options.peer_rounds))
    return rows, readers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2048, help="steps of tokens; 2048 are 1.07 GB as fp16")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds, after one that warms up")
    parser.add_argument("--peer-rounds", type=int, default=3, help="at most so many for the other libraries")
    parser.add_argument("--videos", type=int, default=10_000, help="of the store that is listed")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"comma-separated, of {', '.join(GROUPS)}")
    parser.add_argument("--folder", type=Path, default=None, help="an existing folder on the disk to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := [group for group in options.only if group not in GROUPS]:
        parser.error(f"--only: expected groups of {', '.join(GROUPS)}, got {', '.join(unknown)}")
    if options.steps < _FEWEST_STEPS or options.rounds < 1 or options.peer_rounds < 1 or options.videos < 1:
        parser.error(f"expected --steps of {_FEWEST_STEPS} or more, and --rounds, --peer-rounds and --videos of 1 or more")
    if options.videos > _MOST_VIDEOS:
        parser.error(f"--videos: expected {_MOST_VIDEOS} or fewer, got {options.videos}: their files are hard links, which ext4 limits")
    folder = options.folder or Path(tempfile.gettempdir())
    if not folder.is_dir():
        parser.error(f"--folder: {folder} is not a folder")
    _check_room(parser, options.steps * STEP_BYTES, folder)
    return options


def _check_room(parser: argparse.ArgumentParser, fp16_bytes: int, folder: Path) -> None:
    needed, free = _DISK_SHARE * fp16_bytes, shutil.disk_usage(folder).free
    if needed > free:
        parser.error(f"{needed / 1e9:.1f} GB needed in {folder}, {free / 1e9:.1f} GB free; use fewer --steps or another --folder")
    warm, memory = _MEMORY_SHARE * fp16_bytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if warm > 0.7 * memory:
        parser.error(f"{warm / 1e9:.1f} GB have to stay in the page cache of {memory / 1e9:.1f} GB memory; use fewer --steps")


if __name__ == "__main__":
    sys.exit(main())
