"""How fast the V-JEPA 2 encoder is, and whether it is right: against transformers' encoder and its default forward, in one run.

    python benchmarks/encoder.py                                # ViT-L with random weights, 64 frames, on the GPU if there is one
    python benchmarks/encoder.py --weights facebook/vjepa2-vitl-fpc64-256 --batches 1,2,4,8,16
    python benchmarks/encoder.py --frames 16 --rounds 3 --only ours,transformers    # a CPU: minutes

prints Markdown tables, or one JSON object with --json. All ways to encode take uint8 frames on the device and give tokens there. They
run in interleaved rounds after one that warms up (and compiles); figures are medians, ratios are taken within a round. The
share of the ideal is the arithmetic of the encoder alone, as its shapes give it, divided by the time and by the rate of a large matrix
product (`--tflops`, or measured here). Errors are against transformers' encoder in float32 on the same device.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from encoder_cost import clip_flops, matmul_flops_per_s
from features.encoders.vjepa2 import Config, Encoder
from features.preprocess import normalise
from store_table import Ratio, describe, interleave, machine, markdown, progress
from vjepa_loc.errors import VjepaLocError

# "ours" is what an extraction runs; the others say where its time comes from.
OURS = {
    "ours": {}, "ours, not compiled": {"compile": "off"}, "ours, cuDNN attention": {"attention": "cudnn"},
    "ours, flash attention": {"attention": "flash"},
}
ENCODER, FORWARD = "transformers", "transformers, default forward"
GOAL = "The goal on an H200 with 64 x 256 x 256 in bfloat16: at least 36 clips/s, 1.3 times transformers' encoder, 2 times its default forward."

Encode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Speed:
    """One way to encode one batch size. `missing` says why there are no figures."""

    way: str
    batch: int
    clips_per_s: float = math.nan
    share_of_ideal: float = math.nan
    against_encoder: Ratio | None = None
    against_forward: Ratio | None = None
    peak_bytes: int | None = None
    missing: str = ""

    def cells(self) -> tuple[str, ...]:
        if self.missing:
            return self.way, str(self.batch), self.missing, "", "", "", ""
        peak = "" if self.peak_bytes is None else f"{self.peak_bytes / 2**30:.2f} GiB"
        return (
            self.way, str(self.batch), f"{self.clips_per_s:.4g}", f"{self.share_of_ideal:.1%}", _ratio(self.against_encoder),
            _ratio(self.against_forward), peak,
        )


@dataclass(frozen=True)
class Equality:
    """Tokens of one clip against transformers' encoder in float32."""

    way: str
    dtype: str
    relative_error: float
    min_cosine: float

    def cells(self) -> tuple[str, ...]:
        return self.way, self.dtype, f"{self.relative_error:.2g}", f"{self.min_cosine:.7f}"


class Bench:
    """Everything that is measured about one checkpoint on one device."""

    def __init__(self, weights: str, options: argparse.Namespace):
        self.weights, self.options = weights, options
        self.device = torch.device(options.device)
        self.dtype = {"auto": torch.float32 if self.device.type == "cpu" else torch.bfloat16}.get(options.dtype) or getattr(torch, options.dtype)
        self.names = [name for name in (*OURS, ENCODER, FORWARD) if name in options.only]

    def clips(self, batch: int) -> torch.Tensor:
        spec = self.spec
        frames = self.options.frames or spec.clip_frames
        shape = (batch, frames, *(self.options.size or spec.input_hw), 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(self.device)

    def ours(self, dtype: torch.dtype, **settings) -> Encode:
        encoder = Encoder(Config(weights=self.weights, dtype=str(dtype).removeprefix("torch."), **settings), self.device)
        self.spec = encoder.spec
        return encoder.encode

    def theirs(self, dtype: torch.dtype, name: str) -> Encode:
        from transformers import VJEPA2Model

        model = VJEPA2Model.from_pretrained(self.weights, dtype=dtype, attn_implementation="sdpa").to(self.device).eval()
        mean, std = self.spec.mean, self.spec.std
        part = model.encoder if name == ENCODER else model

        @torch.no_grad()
        def encode(frames_BTHWC3: torch.Tensor) -> torch.Tensor:
            pixels = normalise(frames_BTHWC3, mean, std).permute(0, 1, 4, 2, 3).to(dtype)
            return part(pixels).last_hidden_state.float()

        return encode

    def way(self, name: str, dtype: torch.dtype) -> Encode:
        return self.ours(dtype, **OURS[name]) if name in OURS else self.theirs(dtype, name)

    def equality(self) -> list[Equality]:
        """Of every way, and of ours in float32; one model at a time is in memory."""
        self.ours(torch.float32, compile="off")
        clip = self.clips(1)
        reference = self.theirs(torch.float32, ENCODER)(clip).flatten(0, -2).cpu()
        found = []
        for dtype in dict.fromkeys([torch.float32, self.dtype]):
            for name in dict.fromkeys(["ours", *self.names]):
                if name == FORWARD or (dtype == torch.float32 and name == ENCODER):
                    continue
                progress(f"equality: {name}, {dtype}")
                tokens = self.way(name, dtype)(clip).flatten(0, -2).cpu()
                error = float((tokens - reference).norm() / reference.norm())
                cosine = float(torch.nn.functional.cosine_similarity(tokens.double(), reference.double(), dim=-1).min())
                found.append(Equality(name, str(dtype).removeprefix("torch."), error, cosine))
        return found

    def speeds(self, flops_per_s: float) -> list[Speed]:
        ways = {name: self.way(name, self.dtype) for name in dict.fromkeys(self.names)}
        return [speed for batch in self.options.batches for speed in self._speeds_of(batch, ways, flops_per_s)]

    def _speeds_of(self, batch: int, ways: dict[str, Encode], flops_per_s: float) -> list[Speed]:
        clips = self.clips(batch)
        flops = batch * clip_flops(self.weights, clips.shape[1:4])
        peaks, missing = {}, {}
        for name, encode in ways.items():
            progress(f"batch {batch}: {name}")
            try:
                peaks[name] = self._peak_bytes(encode, clips)
            except torch.cuda.OutOfMemoryError:
                missing[name] = "out of memory"
                torch.cuda.empty_cache()
        tasks = {name: self._task(ways[name], clips) for name in peaks}
        timings = interleave(tasks, self.options.rounds) if tasks else None
        speeds = [Speed(name, batch, missing=reason) for name, reason in missing.items()]
        for name in tasks:
            seconds = timings.median_s(name) / self.options.calls
            against = {key: timings.ratio(name, other) if other in tasks and other != name else None for key, other in
                       (("against_encoder", ENCODER), ("against_forward", FORWARD))}
            speeds.append(Speed(name, batch, batch / seconds, flops / seconds / flops_per_s, **against, peak_bytes=peaks[name]))
        return speeds

    def _task(self, encode: Encode, clips: torch.Tensor) -> Callable[[], None]:
        def run() -> None:
            for _ in range(self.options.calls):
                encode(clips)
            self._wait()

        return run

    def _peak_bytes(self, encode: Encode, clips: torch.Tensor) -> int | None:
        """Of the call alone, without weights and input; the first of two calls may compile. None on a CPU."""
        if self.device.type != "cuda":
            return None
        encode(clips)
        self._wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        encode(clips)
        self._wait()
        return torch.cuda.max_memory_allocated() - before

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def random_weights(folder: Path, settings: dict[str, float]) -> str:
    """A checkpoint of transformers with its default configuration, which is that of ViT-L, and random weights."""
    from transformers import VJEPA2Config, VJEPA2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        VJEPA2Model(VJEPA2Config(**settings)).save_pretrained(folder)
    return str(folder)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads_before)
    try:
        return _run(options)
    except VjepaLocError as error:
        progress(f"error: {error}")
        return 2
    finally:
        torch.set_num_threads(threads_before)


def _run(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vjepa_loc_encoder_") as folder:
        bench = Bench(options.weights or random_weights(Path(folder), dict(options.set)), options)
        flops_per_s = options.tflops * 1e12 if options.tflops else matmul_flops_per_s(bench.device, bench.dtype)
        equalities = bench.equality() if options.equality else []
        speeds = bench.speeds(flops_per_s)
        shape = tuple(bench.clips(1).shape[1:4])
        flops = clip_flops(bench.weights, shape)
    about = machine() | {"device": torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "cpu",
                         "torch": torch.__version__, "threads": torch.get_num_threads()}
    if options.json:
        print(json.dumps({"machine": about, "clip": shape, "flops": flops, "flops_per_s": flops_per_s,
                          "speeds": [asdict(speed) for speed in speeds], "equality": [asdict(equality) for equality in equalities]}, indent=1))
        return 0
    print(describe(about))
    print(
        f"{about['device']}, torch {about['torch']}, {about['threads']} threads, {str(bench.dtype).removeprefix('torch.')}; clips of "
        f"{' x '.join(map(str, shape))}, {flops / 1e12:.3g} TFLOP each; ideal {flops_per_s / 1e12:.4g} TFLOP/s = "
        f"{flops_per_s / flops:.4g} clips/s; {options.rounds} rounds, {time.perf_counter() - started:.0f} s.\n"
    )
    print(markdown(("way", "clips per batch", "clips/s", "of the ideal", "x transformers", "x default forward", "peak memory"),
                   [speed.cells() for speed in speeds]))
    if equalities:
        print("\n" + markdown(("way", "dtype", "relative error", "least cosine"), [equality.cells() for equality in equalities]))
    if bench.device.type == "cuda":
        print(f"\n{GOAL}")
    return 0


def _ratio(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    default = ["ours", *(name for name in OURS if has_gpu and name != "ours"), ENCODER, FORWARD]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a folder or a hub id (default: random weights of ViT-L)")
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE", help="of the random model's configuration")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--frames", type=int, help="per clip (default: the checkpoint's)")
    parser.add_argument("--size", type=_size, help="HEIGHTxWIDTH (default: the checkpoint's square); transformers is wrong at others")
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8] if has_gpu else [1])
    parser.add_argument("--only", type=lambda text: text.split(","), default=default, help=f"of {', '.join((*OURS, ENCODER, FORWARD))}")
    parser.add_argument("--rounds", type=int, default=9 if has_gpu else 3)
    parser.add_argument("--calls", type=int, default=5 if has_gpu else 1, help="per round and way")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU (default: torch's choice)")
    parser.add_argument("--tflops", type=float, help="the ideal rate (default: measured by a matrix product)")
    parser.add_argument("--no-equality", dest="equality", action="store_false")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.calls < 1 or min(options.batches) < 1:
        parser.error("--rounds, --calls and --batches: expected numbers from 1 on")
    return options


def _setting(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    return key, float(value) if "." in value else int(value)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
