"""What a store says about itself: the encoder, the encoding, the storage, and each video.

An `Encoding` holds everything that decides a token's value and nothing else; its `fingerprint` is what runs and stores
are compared by. `Storage` may change without changing what a head sees. `VideoMeta` is provenance and geometry of one
video. All of them are frozen, check themselves when built, and travel as plain JSON (`to_dict`, `from_dict`).
"""

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from vjepa_loc.errors import ConfigError

LEVELS = ("tokens", "pool1", "pool2", "pool4")

Fit = Literal["stretch", "letterbox", "crop", "aspect"]
Positions = Literal["extrapolate", "interpolate"]
Keep = Literal["central", "earliest"]
Level = Literal["tokens", "pool1", "pool2", "pool4"]
NumberFormat = Literal["int8", "float16"]
Compression = Literal["none", "zstd"]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Rgb = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes, so that they can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Record(BaseModel):
    """A frozen value that refuses unknown keys and says in one line what is wrong with the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Fields that came after the first stores were written: left out of the JSON while they have their defaults, so that
    # what is written without them keeps its bytes, and other readers of the format meet no key they do not know.
    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([type(self).__name__, *map(str, first["loc"])])
            message = first["msg"].removeprefix("Value error, ")
            # A rule over several fields says itself what it got; pydantic would print them all.
            got = f", got {_shortened(first.get('input'))}" if first["loc"] else ""
            raise ConfigError(f"{where}: {message}{got}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only; `from_dict` is the inverse."""
        unused = {name for name in self.LATER_FIELDS if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=unused)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises `ConfigError` naming the key that is missing, unknown or wrong."""
        return cls(**values)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class EncoderSpec(Record):
    """What an encoder says about itself (`Encoder.spec`).

    `digest` is the sha256 of the tensors as they stand in the checkpoint, so that it does not depend on the compute
    dtype. An encoder with `fixed_clip` accepts clips of exactly `clip_frames` frames; others accept any multiple of
    `tubelet` up to it. `mean` and `std` normalise RGB in 0..1.

    With `any_grid` its tokens are right on every grid of whole patches that has no more cells than its input; without, only
    frames of exactly its input size are. `trained_hw` is the size in pixels that its positions were trained on, None for the
    input's; `positions` says where the rows and columns of other sizes lie between or beyond the trained ones.
    """

    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset({"any_grid", "trained_hw", "positions"})

    family: str = Field(min_length=1)
    weights: str
    revision: str | None = None
    digest: str = Field(min_length=1)
    clip_frames: PositiveInt
    fixed_clip: bool = False
    tubelet: PositiveInt
    patch_px: PositiveInt
    input_height: PositiveInt
    input_width: PositiveInt
    channels: PositiveInt
    mean: Rgb
    std: Rgb
    any_grid: bool = False
    trained_hw: tuple[PositiveInt, PositiveInt] | None = None
    positions: Positions = "extrapolate"

    @property
    def input_hw(self) -> tuple[int, int]:
        return self.input_height, self.input_width

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        _check_clip(self.clip_frames, self.tubelet)
        _check_input(self.input_hw, self.patch_px)
        return self


class Encoding(Record):
    """Everything that decides a token's value. Two stores with equal fingerprints can be used for each other.

    `input_hw` is the encoder's input in pixels; with `fit = "aspect"` it is a budget, and the input of each video has at most
    as many cells. Where inputs differ from the size that the positions were trained on, `positions` says how they are placed;
    interpolated ones depend on that size, `trained_hw`, which is None otherwise. Sampling is every `frame_step`-th frame, or `sample_fps` by
    presentation time. `overlap` counts the sampled frames that consecutive clips share. `mean` and `std` normalise RGB
    in 0..1.
    """

    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset({"positions", "trained_hw"})

    family: str = Field(min_length=1)
    digest: str = Field(min_length=1)
    channels: PositiveInt
    tubelet: PositiveInt
    patch_px: PositiveInt
    input_hw: tuple[PositiveInt, PositiveInt]
    fit: Fit = "stretch"
    resize_version: int
    frame_step: PositiveInt = 1
    sample_fps: PositiveFloat | None = None
    clip_frames: PositiveInt
    fixed_clip: bool = False
    overlap: Annotated[int, Field(ge=0)] = 0
    keep: Keep = "central"
    mean: Rgb
    std: Rgb
    positions: Positions = "extrapolate"
    trained_hw: tuple[PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        _check_clip(self.clip_frames, self.tubelet)
        _check_input(self.input_hw, self.patch_px)
        if (self.positions == "interpolate") != (self.trained_hw is not None):
            raise ValueError("trained_hw is for interpolated positions, and they need it; give both or neither")
        if self.overlap >= self.clip_frames or self.overlap % self.tubelet:
            raise ValueError(
                f"overlap must be a multiple of tubelet {self.tubelet} below clip_frames {self.clip_frames}, "
                f"got {self.overlap}"
            )
        if self.sample_fps is not None and self.frame_step != 1:
            raise ValueError("frame_step and sample_fps exclude each other; give one of them")
        return self

    @classmethod
    def build(
        cls, spec: EncoderSpec, *, fit: Fit, resize_version: int, frame_step: int = 1, sample_fps: float | None = None,
        overlap: int = 0, keep: Keep = "central",
    ) -> Self:
        """The encoding of `spec` under one recipe; `overlap` in sampled frames.

        Raises ConfigError for `fit = "aspect"` with an encoder that is right on one grid only.
        """
        if fit == "aspect" and not spec.any_grid:
            raise ConfigError(
                f"extract.fit: aspect gives every video its own grid, expected an encoder that is right on any, got {spec.family}; "
                f"choose stretch, letterbox or crop, or encoder vjepa2"
            )
        # Where every input has the trained size, both kinds of positions give the same tokens: one encoding.
        interpolated = spec.positions == "interpolate" and (fit == "aspect" or spec.trained_hw not in (None, spec.input_hw))
        trained_hw = spec.trained_hw or spec.input_hw
        return cls(
            family=spec.family, digest=spec.digest, channels=spec.channels, tubelet=spec.tubelet, patch_px=spec.patch_px,
            input_hw=spec.input_hw, clip_frames=spec.clip_frames, fixed_clip=spec.fixed_clip,
            mean=spec.mean, std=spec.std, fit=fit, resize_version=resize_version, frame_step=frame_step,
            sample_fps=sample_fps, overlap=overlap, keep=keep, positions="interpolate" if interpolated else "extrapolate",
            trained_hw=trained_hw if interpolated else None,
        )

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of `to_dict`."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()

    def diff(self, other: "Encoding") -> list[str]:
        """One `"field: mine != theirs"` per field that differs; empty when the encodings are equal."""
        # Whole, not as written: a field that one of them leaves out has its default there.
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name}: {mine[name]!r} != {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


def _check_clip(clip_frames: int, tubelet: int) -> None:
    if clip_frames % tubelet:
        raise ValueError(f"clip_frames must be a multiple of tubelet {tubelet}, got {clip_frames}")


def _check_input(input_hw: tuple[int, int], patch_px: int) -> None:
    if input_hw[0] % patch_px or input_hw[1] % patch_px:
        raise ValueError(f"the input (height, width) must be multiples of patch_px {patch_px}, got {input_hw}")


class Storage(Record):
    """How tokens lie on disk: number format, steps per shard file, which levels are kept, and whether every step of
    them is compressed.
    """

    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset({"compression"})

    number_format: NumberFormat = "int8"
    shard_steps: PositiveInt = 512
    levels: tuple[Level, ...] = LEVELS
    compression: Compression = "none"

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels must be distinct and at least one of {', '.join(LEVELS)}, got {self.levels}")
        return self


class Source(Record):
    """The file a video was decoded from; `sha256` is of its bytes, computed while they were decoded."""

    name: str
    size: Annotated[int, Field(ge=0)]
    mtime_ns: int
    sha256: str


class Damage(Record):
    """What decoding lost: the number of decoding errors, the gaps, and the decoder's messages."""

    num_errors: Annotated[int, Field(ge=0)]
    gaps: tuple[Any, ...] = ()
    messages: tuple[str, ...] = ()


def as_fraction(value: Any) -> Fraction:
    """A positive frame rate. Raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError("expected a fraction such as '30000/1001'")
    try:
        fraction = Fraction(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("expected a fraction such as '30000/1001'") from None
    if fraction <= 0:
        raise ValueError("expected a positive frame rate")
    return fraction


Fps = Annotated[Any, BeforeValidator(as_fraction), PlainSerializer(str)]


class VideoMeta(Record):
    """Geometry and provenance of one stored video; becomes the attributes of its Zarr group.

    `width` and `height` are displayed pixels (after `rotation`, degrees). `grid` is (H, W) cells. `space_grid` is
    `SpaceGrid.to_dict()`. `fps` is a `Fraction`; with `fps_nominal` it was assumed, with `times_made_up` the
    presentation times were computed from it. `versions` maps libraries to versions.

    What a conversion did to the values stands here too: `earlier_formats` are the number formats that the tokens went
    through before the present one, oldest first, each of which rounded them; `pools_of_stored_tokens` are the levels
    that were computed from stored tokens, not from the encoder's.
    """

    LATER_FIELDS: ClassVar[frozenset[str]] = frozenset({"earlier_formats", "pools_of_stored_tokens"})

    id: str = Field(min_length=1)
    source: Source
    num_frames: PositiveInt
    fps: Fps
    fps_nominal: bool = False
    times_made_up: bool = False
    width: PositiveInt
    height: PositiveInt
    rotation: int = 0
    grid: tuple[PositiveInt, PositiveInt]
    space_grid: dict[str, Any]
    decoder: str
    versions: dict[str, str] = {}
    device: str
    dtype: str
    damage: Damage | None = None
    weights: str = ""
    revision: str | None = None
    earlier_formats: tuple[NumberFormat, ...] = ()
    pools_of_stored_tokens: tuple[Level, ...] = ()

    @property
    def damaged(self) -> bool:
        return self.damage is not None
