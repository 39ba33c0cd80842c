"""`cli.py estimate`: what an extraction will cost, before it is begun. Parses, calls, and prints, as `cli.py` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.durable import readable_size
from features.options import DatasetOption, EncoderOption, JsonOption, SetOption, StoreOption
from features.terminal import count_bar, print_json, print_table, readable_time, say
from vjepa_loc.errors import ConfigError, VideoError
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from features.encode_stage import Encoder
    from features.estimate import Estimate, Work
    from features.extract_settings import ExtractSettings
    from features.schema import EncoderSpec

SecondsOption = Annotated[float, typer.Option(help="Of the measured run, from its first clip on; 0: measure nothing.")]
GpuOption = Annotated[
    Optional[str], typer.Option(metavar="NAME", help="Derive the speed of h200, h100, a100, rtx4090, or of TFLOP/s in bf16.", show_default=False)
]
GpusOption = Annotated[int, typer.Option(help="How many of them.")]


def estimate(
    encoder: EncoderOption = None,
    dataset: DatasetOption = None,
    store: StoreOption = None,
    seconds: SecondsOption = 30.0,
    gpu: GpuOption = None,
    gpus: GpusOption = 1,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Clips, hours and bytes of an extraction: counted, measured here in a short run, and derived for a GPU."""
    from features.estimate_gpu import matmul_tflops
    from features.extract_settings import read_extract_settings

    if not 0 <= seconds <= 3600:
        raise ConfigError(f"--seconds: expected 0 to 3600, got {seconds:g}")
    if gpus < 1:
        raise ConfigError(f"--gpus: expected at least 1, got {gpus}")
    tflops = None if gpu is None else matmul_tflops(gpu)
    settings = read_extract_settings(read_workspace(Path()), encoder, dataset, store, overrides or ())
    say(*settings.notes)
    found = _estimate(settings, seconds, gpu, tflops, gpus)
    print_json(found.to_dict()) if json_output else _print(found)


def _estimate(settings: "ExtractSettings", seconds: float, gpu: str | None, tflops: float | None, gpus: int) -> "Estimate":
    from features.estimate import Estimate, derive_gpu, measure_here, usable_cores, work_of
    from features.estimate_gpu import transformer_of
    from features.estimate_lengths import decode_rate, known_lengths
    from features.store import find_store
    from vjepa_loc.dataset import read_dataset

    read = read_dataset(settings.dataset)
    loaded, spec, notes = _encoder_or_spec(settings, may_be_absent=gpu is not None, wanted=seconds > 0)
    shape = None if gpu is None else transformer_of(settings.encoder_name, settings.encoder_config)
    encoding = settings.recipe.encoding(spec)
    with count_bar("open") as on_video:
        lengths = known_lengths(list(read.videos.values()), encoding.sample_fps is not None, on_video, jobs=usable_cores())
    if not lengths.videos:
        reasons = next(iter(lengths.unreadable.values()), "it has no videos")
        raise VideoError(f"{settings.dataset}: no video whose length is known: {reasons}; look at them with `python cli.py check-videos`")
    notes += lengths.notes()
    # Without its weights an encoder has no digest, so that the store's encoding cannot be compared.
    here = find_store(settings.store, encoding) if loaded is not None else None
    stored = set() if here is None else set(here.summaries())
    left = [video for video in lengths.videos if video.id not in stored]
    whole, rest = work_of(lengths.videos, encoding, settings.storage), work_of(left, encoding, settings.storage)
    measured = frames_per_core_s = None
    if seconds:
        # A dataset that is stored already can be measured all the same.
        sample = left or list(lengths.videos)
        if loaded is not None:
            measured = measure_here(sample, whole, loaded, settings.recipe, settings.storage, seconds)
        frames_per_core_s = decode_rate(sample, encoding, settings.recipe, min(10.0, seconds / 3))
    derived = None
    if gpu is not None and shape is None:
        notes.append(f"--gpu: encoder {settings.encoder_name} has no layers; on a GPU decoding would limit, see the measured rate of a core")
    elif gpu is not None:
        derived = derive_gpu(rest if left else whole, left or lengths.videos, encoding, shape, gpu, tflops, gpus, frames_per_core_s)
    if settings.storage.compression != "none":
        notes.append("bytes are those before compression; zstd takes a tenth to a quarter off int8 tokens")
    return Estimate(
        dataset=str(settings.dataset), encoder=f"{settings.encoder_name} {spec.weights}".strip(), num_stored=len(stored & set(read.videos)),
        all=whole, left=rest, frames_per_core_s=frames_per_core_s, measured=measured, gpu=derived, notes=tuple(notes),
    )


def _encoder_or_spec(settings: "ExtractSettings", may_be_absent: bool, wanted: bool) -> tuple["Encoder | None", "EncoderSpec", list[str]]:
    """The encoder, and what it says of itself; of a published checkpoint whose weights are not here only the latter.

    Weights are not downloaded where they are not needed: for what a GPU elsewhere would do, or where nothing is measured.
    """
    from features.estimate_gpu import published_spec, weights_are_here
    from features.extract import load_encoder

    spec = published_spec(settings.encoder_name, settings.encoder_config)
    if spec is not None and (not wanted or (may_be_absent and not weights_are_here(settings.encoder_config))):
        return None, spec, [f"encoder {settings.encoder_name}: {spec.weights} was not loaded; its published shape is used, "
                           "and encoding was not measured"]
    loaded = load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())
    return loaded, loaded.spec, []


def _print(found: "Estimate") -> None:
    columns = ["", "all videos"] + (["left"] if found.num_stored else [])
    works = [found.all, found.left][: len(columns) - 1]
    print_table(f"{found.dataset}, encoder {found.encoder}", columns, _rows(works))
    for title, rows in (_measured_rows(found), _gpu_rows(found)):
        if rows:
            print_table(title, ("", ""), rows)
    for note in found.notes:
        print(note)


def _rows(works: list["Work"]) -> list[tuple[str, ...]]:
    names = ("videos", "duration", "frames", "clips", "steps", "bytes")
    cells = [
        (f"{work.num_videos:,}", "" if work.hours_of_video is None else readable_time(3600 * work.hours_of_video), f"{work.num_frames:,}",
         f"{work.num_clips:,}", f"{work.num_steps:,}", f"{work.num_bytes:,} ({readable_size(work.num_bytes)})")
        for work in works
    ]
    return [(name, *(column[index] for column in cells)) for index, name in enumerate(names)]


def _measured_rows(found: "Estimate") -> tuple[str, list[tuple[str, str]]]:
    run, rows = found.measured, []
    if run is not None:
        title = f"here, on {run.device}: measured on {run.num_clips} clips of {run.num_videos} videos in {run.seconds:g} s"
        rows.append(("clips per second", f"{run.clips_per_s:.2f} ({run.frames_per_s:,.0f} frames/s)"))
        rows.append((_time_label(found), readable_time(3600 * run.hours(found.left if found.left.num_clips else found.all))))
        if run.limit:
            busy = ", ".join(f"{stage} {share:.0%}" for stage, share in run.busy.items())
            rows.append(("what limits", f"{run.limit} (busy: {busy})"))
        if run.failed:
            rows.append(("failed", "; ".join(run.failed.values())))
    else:
        title = "here"
    if found.frames_per_core_s is not None:
        rows.append(("decoding, one core", f"{found.frames_per_core_s:,.0f} frames/s with resizing, measured"))
    return title, rows


def _gpu_rows(found: "Estimate") -> tuple[str, list[tuple[str, str]]]:
    gpu = found.gpu
    if gpu is None:
        return "", []
    name = gpu.gpu if not gpu.gpu.replace(".", "").isdigit() else "GPU"
    rows = [
        ("encoder", f"{gpu.tflop_per_clip:.2f} TFLOP per clip; {gpu.tflops:g} TFLOP/s: {gpu.ideal_clips_per_s:.1f} clips/s ideal"),
        ("clips per second expected", _range(gpu.clips_per_s)),
        (_time_label(found), f"{readable_time(3600 * gpu.hours[0])} to {readable_time(3600 * gpu.hours[1])}"),
        ("frames to decode", f"{_range(gpu.frames_per_s, 0)} per second"),
        ("cores that decode so fast", "not measured (--seconds 0)" if gpu.decode_cores is None else _range(gpu.decode_cores)),
        ("bytes to write", f"{readable_size(round(gpu.write_bytes_per_s[0]))} to {readable_size(round(gpu.write_bytes_per_s[1]))} per second"),
        ("what limits", gpu.limit),
    ]
    return f"{gpu.num_gpus} x {name}: derived, unmeasured", rows


def _range(values: tuple[float, float], digits: int = 1) -> str:
    return f"{values[0]:,.{digits}f} to {values[1]:,.{digits}f}"


def _time_label(found: "Estimate") -> str:
    return "time for what is left" if found.num_stored and found.left.num_clips else "time for all videos"
