"""What a store says about itself keeps its meaning, and wrong values are refused in one line."""

from fractions import Fraction

import pytest

from features.schema import Encoding, EncoderSpec, Storage, VideoMeta
from tests.features.store_builder import small_encoding, space_grid, video_meta
from vjepa_loc.errors import ConfigError


def test_the_fingerprint_of_an_encoding_never_changes():
    # A change here would make every existing store one "of another encoding".
    assert small_encoding().fingerprint == "c5f68831c19c6c89fc5301c466a73013b0b091180c35e22175662a14c5d1c375"


@pytest.mark.parametrize("change", [
    {"digest": "1" * 64}, {"input_hw": (64, 64)}, {"fit": "crop"}, {"resize_version": 2}, {"frame_step": 2},
    {"sample_fps": 4.0}, {"overlap": 8}, {"keep": "earliest"}, {"clip_frames": 32}, {"mean": (0.4, 0.5, 0.5)},
])
def test_what_decides_a_token_changes_the_fingerprint_and_is_named(change):
    changed = small_encoding(**change)
    assert changed.fingerprint != small_encoding().fingerprint
    [difference] = small_encoding().diff(changed)
    assert difference.startswith(f"{next(iter(change))}: ") and " != " in difference


def test_an_encoding_survives_json():
    encoding = small_encoding(sample_fps=4.0)
    assert Encoding.from_dict(encoding.to_dict()) == encoding
    assert Encoding.from_dict(encoding.to_dict()).fingerprint == encoding.fingerprint


def test_an_encoding_is_built_from_what_the_encoder_says():
    spec = EncoderSpec(
        family="toy", weights="toy", digest="0" * 64, clip_frames=16, tubelet=2, patch_px=8, input_height=48, input_width=48,
        channels=24, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
    )
    assert Encoding.build(spec, fit="stretch", resize_version=1) == small_encoding()


@pytest.mark.parametrize(("change", "message"), [
    ({"overlap": 3}, "overlap must be a multiple of tubelet 2 below clip_frames 16, got 3"),
    ({"overlap": 16}, "overlap must be a multiple of tubelet 2 below clip_frames 16, got 16"),
    ({"clip_frames": 15}, "clip_frames must be a multiple of tubelet 2, got 15"),
    ({"input_hw": (50, 48)}, "must be multiples of patch_px 8, got (50, 48)"),
    ({"frame_step": 2, "sample_fps": 3.0}, "frame_step and sample_fps exclude each other"),
    ({"fit": "squash"}, "Encoding.fit: Input should be 'stretch', 'letterbox', 'crop' or 'aspect', got 'squash'"),
    ({"frame_stepp": 2}, "Encoding.frame_stepp: Extra inputs are not permitted, got 2"),
])
def test_a_wrong_encoding_is_refused(change, message):
    with pytest.raises(ConfigError) as caught:
        small_encoding(**change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_storage_needs_distinct_levels():
    with pytest.raises(ConfigError, match="levels must be distinct"):
        Storage(levels=("pool1", "pool1"))


def test_a_video_keeps_its_frame_rate_as_a_fraction():
    meta = video_meta("a", 10, space_grid(), fps=Fraction(30000, 1001))
    assert meta.to_dict()["fps"] == "30000/1001"
    assert VideoMeta.from_dict(meta.to_dict()) == meta
    with pytest.raises(ConfigError, match="positive frame rate"):
        video_meta("a", 10, space_grid(), fps=0)


def test_fields_that_came_later_leave_earlier_records_as_they_were():
    assert set(Storage().to_dict()) == {"number_format", "shard_steps", "levels"}
    assert Storage(compression="zstd").to_dict()["compression"] == "zstd"
    meta = video_meta("v", 8, space_grid())
    assert not {"earlier_formats", "pools_of_stored_tokens"} & set(meta.to_dict())
    converted = video_meta("v", 8, space_grid(), earlier_formats=("int8",), pools_of_stored_tokens=("pool1",))
    assert VideoMeta.from_dict(converted.to_dict()) == converted and VideoMeta.from_dict(meta.to_dict()) == meta
    assert converted.to_dict()["earlier_formats"] == ["int8"]
