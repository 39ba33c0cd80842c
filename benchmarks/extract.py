"""How fast extraction is: against the slowest of its stages alone, against the CPU time it takes, and against the plain loop.

    python benchmarks/extract.py [--rounds 5] [--only cheap,sleeping] [--videos DIR] [--folder DIR] [--json] [--quick]

makes its own videos (720p and other sizes, H.264; kept in `--videos` for the next run), and prints Markdown tables or one JSON
object. Rounds are interleaved, ratios are taken within a round, and their median counts. The groups: `cheap` and `expensive` and
`sleeping` are whole extractions with such encoders beside their stages alone; `plain` is the loop that is usually written;
`memory` is the most that an extraction takes (an hour of video, optional because it decodes 147,000 frames).
What each line means is in docs/benchmarks.md. The machine should do nothing else meanwhile. Linux only.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from store_table import Row, bars_table, describe, machine, markdown, progress
from vjepa_loc.errors import VjepaLocError

DEFAULT_GROUPS = ("cheap", "expensive", "sleeping", "plain")
GROUPS = (*DEFAULT_GROUPS, "memory")


def main() -> int:
    options = _options()
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="vjepa_loc_extract_", dir=options.folder) as folder:
            rows, tables = measure(Path(folder), options)
    except (VjepaLocError, OSError) as error:
        progress(f"error: {error}")
        return 2
    about, taken_s = machine(), time.perf_counter() - started
    if options.json:
        given = {"rounds": options.rounds, "groups": options.only, "quick": options.quick}
        print(json.dumps({
            "machine": about, "options": given, "rows": [row.to_dict() for row in rows],
            "stages": {name: table.to_dict() for name, table in tables.items()},
        }, indent=1))
        return 0
    print(describe(about))
    print(f"{options.rounds} rounds, {taken_s:.0f} s.\n\n{bars_table(rows)}")
    for name, table in tables.items():
        print(f"\n{name}: {table.about}\n\n{markdown(table.COLUMNS, table.cells())}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[Row], dict]:
    """Rows with bars, and what the stages of each kind of extraction did."""
    # Late: wrong options are answered at once.
    from extract_memory import measure_memory
    from extract_whole import measure_plain, measure_whole

    rows: list[Row] = []
    tables = {}
    for group in (group for group in GROUPS if group in options.only):
        progress(group)
        if group == "plain":
            more = measure_plain(folder, options.videos, options.rounds, options.quick)
        elif group == "memory":
            more = measure_memory(folder, options.videos, options.quick)
        else:
            more, tables[group] = measure_whole(group, folder, options.videos, options.rounds, options.quick)
        # A run that is broken off later has at least said this.
        progress("\n".join(" | ".join(row.cells()) for row in more))
        rows += more
    return rows, tables


def _options() -> argparse.Namespace:
    default_videos = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vjepa_loc" / "benchmark_videos"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one that warms up")
    parser.add_argument("--only", default=",".join(DEFAULT_GROUPS), help=f"comma-separated, of {', '.join(GROUPS)}")
    parser.add_argument("--videos", type=Path, default=default_videos, help="where the videos are kept; default: %(default)s")
    parser.add_argument("--folder", type=Path, default=None, help="an existing folder on the disk to write stores to")
    parser.add_argument("--quick", action="store_true", help="small videos: does it work? The figures mean nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := [group for group in options.only if group not in GROUPS]:
        parser.error(f"--only: expected groups of {', '.join(GROUPS)}, got {', '.join(unknown)}")
    if options.rounds < 1:
        parser.error("expected --rounds of 1 or more")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder: {options.folder} is not a folder")
    return options


if __name__ == "__main__":
    sys.exit(main())
