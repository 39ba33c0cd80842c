"""What a large extraction takes: bytes, files, requests, GPU hours, decoding cores, network; nothing is run.

    python benchmarks/scale.py [--hours 1e6] [--gpus 64] [--fps 25] [--minutes 60] [--clips-per-s 40] [--decode-fps 199] [--json]

Sizes and files are those of this project's writer, from the specifications that it lays arrays out by. docs/scale.md explains
them. The rates are what you give: clips per second of one GPU and frames per second of one decoding core; the defaults are docs/scale.md's assumptions.
"""

import argparse
import json
from dataclasses import asdict, dataclass

from features.estimate_bytes import stored_bytes
from features.schema import Encoding, Storage
from features.zarr_layout import plain_specs, step_specs
from store_table import markdown

# V-JEPA 2 ViT-L, 64 x 256 x 256.
ENCODING = Encoding(
    family="vjepa2", digest="0", channels=1024, tubelet=2, patch_px=16, input_hw=(256, 256), clip_frames=64, resize_version=1,
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
)
GRID_HW = (16, 16)
# A commit, its claim taken, looked at and given back, two listings, three looks; docs/remote.md.
REQUESTS_PER_VIDEO = 12
PART_BYTES = 8 << 20

CHOICES = {
    "everything, fp16": Storage(number_format="float16"),
    "everything, int8": Storage(),
    "tokens int8, no pyramid": Storage(levels=("tokens",)),
    "pyramid (pool1, pool2, pool4)": Storage(levels=("pool1", "pool2", "pool4")),
    "pool4": Storage(levels=("pool4",)),
    "pool1": Storage(levels=("pool1",)),
}


@dataclass(frozen=True)
class Plan:
    """What is to be done, and with what."""

    hours: float
    gpus: int
    fps: float
    minutes: float
    clips_per_s: float
    decode_fps: float
    source_mbit: float

    @property
    def num_videos(self) -> int:
        return round(self.hours * 60 / self.minutes)

    @property
    def num_frames(self) -> float:
        """Of all videos together."""
        return self.hours * 3600 * self.fps


@dataclass(frozen=True)
class Need:
    """One row: what one choice takes in all. `write_mb_s` while the GPUs are busy, all together."""

    storage: str
    frame_step: int
    petabytes: float
    million_files: float
    million_requests: float
    gpu_hours: float
    days: float
    decode_core_hours: float
    cores_per_gpu: float
    write_mb_s: float


def need(plan: Plan, name: str, storage: Storage, frame_step: int) -> Need:
    """What `plan` takes where every `frame_step`-th frame is sampled."""
    frames = round(plan.minutes * 60 * plan.fps)
    sampled = -(-frames // frame_step)
    steps = -(-sampled // ENCODING.tubelet)
    clips = -(-sampled // ENCODING.clip_frames)
    specs = [*step_specs(storage, steps, GRID_HW, ENCODING.channels).values()]
    specs += plain_specs(steps, ENCODING.tubelet, ENCODING.channels, frames).values()
    num_bytes = stored_bytes(ENCODING, storage, steps, frames, GRID_HW)
    shards = sum(spec.num_shards for spec in specs)
    # A zarr.json for each array, the video and its generation, and the commit.
    files = shards + len(specs) + 3
    # A large file is put in parts.
    requests = files + num_bytes // PART_BYTES + REQUESTS_PER_VIDEO
    gpu_s = plan.num_videos * clips / plan.clips_per_s
    decode_s = plan.num_videos * frames / plan.decode_fps
    return Need(
        storage=name, frame_step=frame_step,
        petabytes=plan.num_videos * num_bytes / 1e15,
        million_files=plan.num_videos * files / 1e6,
        million_requests=plan.num_videos * requests / 1e6,
        gpu_hours=gpu_s / 3600,
        days=gpu_s / plan.gpus / 86400,
        decode_core_hours=decode_s / 3600,
        cores_per_gpu=decode_s / gpu_s,
        write_mb_s=plan.num_videos * num_bytes / (gpu_s / plan.gpus) / 1e6,
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, what in (
        ("hours", 1e6, "of video"), ("gpus", 64, ""), ("fps", 25.0, "of the videos"), ("minutes", 60.0, "of one video"),
        ("clips-per-s", 40.0, "of one GPU"), ("decode-fps", 199.0, "frames per second of one core"),
        ("source-mbit", 2.5, "Mbit/s of a video"),
    ):
        parser.add_argument(f"--{name}", type=type(value), default=value, help=what)
    parser.add_argument("--frame-steps", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--json", action="store_true")
    arguments = vars(parser.parse_args())
    as_json, frame_steps = arguments.pop("json"), arguments.pop("frame_steps")
    plan = Plan(**arguments)
    rows = [need(plan, name, storage, step) for step in frame_steps for name, storage in CHOICES.items()]
    if as_json:
        print(json.dumps({"plan": asdict(plan), "needs": [asdict(row) for row in rows]}))
        return
    read_mb_s = plan.source_mbit / 8 * plan.clips_per_s * ENCODING.clip_frames / plan.fps * plan.gpus
    files_tb = plan.hours * 3600 * plan.source_mbit / 8 / 1e6
    print(f"{plan.num_videos:,} videos, {plan.num_frames:.3g} frames, {files_tb:,.0f} TB of files; "
          f"reading them at native rate takes {read_mb_s:,.0f} MB/s\n")
    print(markdown(
        [
            "storage", "frame_step", "PB", "10^6 files", "10^6 requests", "GPU hours", f"days on {plan.gpus}", "decoding core hours",
            "cores per GPU", "MB/s written",
        ],
        [[
            row.storage, str(row.frame_step), f"{row.petabytes:,.3g}", f"{row.million_files:,.3g}", f"{row.million_requests:,.4g}",
            f"{row.gpu_hours:,.0f}", f"{row.days:.1f}", f"{row.decode_core_hours:,.0f}", f"{row.cores_per_gpu:.1f}", f"{row.write_mb_s:,.0f}",
        ] for row in rows],
    ))


if __name__ == "__main__":
    main()
