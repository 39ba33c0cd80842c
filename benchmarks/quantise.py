"""What number formats cost on the tokens of one store: their error, and, with a dataset, the score of a head.

    python benchmarks/quantise.py STORE [--tokens 65536] [--json]
    python benchmarks/quantise.py STORE --dataset DATASET.json [--head dense] [--epochs N] [--seeds 3]

The first takes a random sample of the store and prints the error of every format; seconds. The second also trains a head
on the float16 tokens and on the same tokens as int8, with several seeds, and prints the scores: as long as twice that many
trainings. Start from a store that was extracted with `--set store.number_format=float16`: of an int8 store, what int8 has
changed is not known any more. What the figures mean is in docs/benchmarks.md.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from features import Store, open_store
from quantise_formats import Level, compare_formats, first_clip_shift
from store_table import describe, machine, markdown, progress
from vjepa_loc.errors import StoreError, VjepaLocError

_PIECE_STEPS = 4
_MOST_VIDEOS = 64


@dataclass(frozen=True)
class Sample:
    """Tokens of some videos in raw units, (N, C) float32 each, and the statistics of each one's first clip."""

    videos: tuple[Tensor, ...]
    first_clips: tuple[Level, ...]
    number_formats: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.videos))


def draw_sample(store: Store, num_tokens: int, seed: int) -> Sample:
    """About `num_tokens` tokens: pieces of 4 steps, anywhere in up to 64 random videos; letterbox bars left out."""
    rng = np.random.default_rng(seed)
    ids = [video_id for video_id in store.video_ids() if "tokens" in store.video(video_id).levels]
    if not ids:
        raise StoreError(f"the store {store.path} holds no video with tokens; give one that was extracted with the level tokens")
    ids = rng.permutation(ids)[:_MOST_VIDEOS].tolist()
    videos, first_clips, formats = [], [], set()
    for video_id in ids:
        video = store.video(video_id)
        valid_HW = torch.from_numpy(np.array(video.space_grid.valid_HW))
        piece = min(_PIECE_STEPS, video.num_steps)
        num_pieces = max(1, round(num_tokens / len(ids) / piece / int(valid_HW.sum())))
        starts = rng.permutation(np.arange(0, video.num_steps - piece + 1, piece))[:num_pieces]
        parts = []
        for start in sorted(starts.tolist()):
            tokens_nHWC = torch.empty(piece, *video.grid, store.encoding.channels)
            video.read("tokens", start, start + piece, tokens_nHWC)
            parts.append(tokens_nHWC[:, valid_HW].flatten(0, 1))
        videos.append(torch.cat(parts))
        first_clips.append((torch.tensor(video.mean), torch.tensor(video.std)))
        formats.add(video.storage.number_format)
    return Sample(tuple(videos), tuple(first_clips), tuple(sorted(formats)))


def errors_table(found: Mapping[str, Mapping[str, float]]) -> str:
    columns = ("format", "bytes of float16", "relative error", "cosine", "cosine of the worst 1%", "agreement of a linear head")
    return markdown(columns, [
        (name, f"{figures['share']:.3f}", f"{figures['error']:.5f}", f"{figures['cosine']:.6f}", f"{figures['worst_cosine']:.6f}",
         f"{figures['agreement']:.2%}")
        for name, figures in found.items()
    ])


def shift_table(found: Mapping[str, Mapping[str, float]]) -> str:
    columns = ("the first clip's statistics against those of", "std ratio: 1%", "median", "99%", "distance of means, in std: median", "99%")
    return markdown(columns, [(name, *(f"{value:.3f}" for value in figures.values())) for name, figures in found.items()])


def main() -> int:
    options = _options()
    try:
        store = open_store(options.store)
        sample = draw_sample(store, options.tokens, options.sample_seed)
        progress(f"{sample.num_tokens} tokens of {len(sample.videos)} videos")
        errors, shift = compare_formats(sample.videos, sample.first_clips), first_clip_shift(sample.videos, sample.first_clips)
        scores = _trained(store, options) if options.dataset else []
    except (VjepaLocError, OSError) as error:
        progress(f"error: {' '.join(str(error).split())}")
        return 2
    reference = "the tokens as float16"
    if sample.number_formats != ("float16",):
        reference = (
            "tokens that were read from int8, wholly or in part: errors of int8 with the first clip's statistics are therefore "
            "about zero and say nothing; extract with --set store.number_format=float16"
        )
    if options.json:
        print(json.dumps({
            "machine": machine(), "reference": reference, "tokens": sample.num_tokens, "videos": len(sample.videos),
            "errors": errors, "first_clip": shift, "scores": [asdict(score) for score in scores],
        }, indent=1))
        return 0
    encoding = store.encoding
    print(f"{describe(machine())}\n{encoding.family}, {encoding.channels} channels; {sample.num_tokens} tokens of "
          f"{len(sample.videos)} videos; the reference is {reference}.\n")
    print(f"{errors_table(errors)}\n\n{shift_table(shift)}")
    if scores:
        print(f"\n{_scores_table(scores)}")
    return 0


def _trained(store: Store, options: argparse.Namespace) -> Sequence:
    # Late: without a dataset nothing of this is needed, and it takes seconds to import.
    from quantise_heads import train_on_each_format

    with contextlib.ExitStack() as stack:
        folder = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vjepa_loc_quantise_")))
        return train_on_each_format(
            store, options.dataset, folder, options.head, options.epochs, options.seeds, options.split, options.set
        )


def _scores_table(scores: Sequence) -> str:
    from quantise_heads import summarise

    found = summarise(scores)
    names = list(next(iter(found.values())))
    seeds = len({score.seed for score in scores})
    return markdown(
        ("one seed" if seeds == 1 else f"mean ± standard deviation of {seeds} seeds", *names),
        [(line, *(str(figures[name]) for name in names)) for line, figures in found.items()],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="a store, best one of float16")
    parser.add_argument("--tokens", type=int, default=65_536, help="size of the sample; 65,536 of ViT-L take 0.27 GB")
    parser.add_argument("--sample-seed", type=int, default=0)
    parser.add_argument("--dataset", type=Path, default=None, help="train a head on float16 and on int8, too")
    parser.add_argument("--head", default="dense", help="of heads/")
    parser.add_argument("--epochs", type=int, default=None, help="default: that of the workspace or of the training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per format")
    parser.add_argument("--split", default=None, help="to score; default: test where there is one, else val")
    parser.add_argument("--out", type=Path, default=None, help="folder to keep runs and the int8 store in")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="training settings; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    if options.tokens < 100 or options.seeds < 1 or (options.epochs is not None and options.epochs < 1):
        parser.error("expected --tokens of 100 or more, --seeds and --epochs of 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
