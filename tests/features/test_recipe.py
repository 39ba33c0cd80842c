"""The recipe of an extraction: its encoding and back, its refusals, and where its values come from."""

import pytest

from features.encoders.tiny import Config, Encoder
from features.extract_settings import read_extract_settings
from features.recipe import ExtractConfig
from vjepa_loc.errors import ConfigError, UnknownNameError
from vjepa_loc.workspace import read_workspace


@pytest.fixture(scope="module")
def spec():
    return Encoder(Config()).spec


@pytest.mark.parametrize(
    "changes",
    [{}, {"fit": "crop", "frame_step": 3}, {"sample_fps": 4.0, "keep": "earliest"}, {"overlap": 0.5}, {"overlap": 0.9}, {"overlap": 0.13}],
)
def test_a_recipe_gives_an_encoding_and_an_encoding_its_recipe(spec, changes):
    encoding = ExtractConfig(**changes).encoding(spec)
    assert encoding.clip_frames == spec.clip_frames and encoding.digest == spec.digest
    assert ExtractConfig(decoder="decord").with_encoding(encoding).encoding(spec) == encoding
    assert ExtractConfig(decoder="decord").with_encoding(encoding).decoder == "decord"


@pytest.mark.parametrize("key", ["decode_workers", "threads", "batch_clips", "write_threads"])
def test_a_slip_of_the_keyboard_starts_no_million_threads(key):
    assert getattr(ExtractConfig(**{key: 1024}), key) == 1024
    with pytest.raises(ConfigError, match=f"{key}: Input should be less than or equal to 1024, got 1025"):
        ExtractConfig(**{key: 1025})


def test_what_does_not_change_a_token_does_not_change_the_encoding(spec):
    assert ExtractConfig().encoding(spec) == ExtractConfig(decoder="decord", batch_clips=7, deadline_s=1, device="cpu").encoding(spec)


def test_frame_step_and_sample_fps_exclude_each_other():
    with pytest.raises(ConfigError, match="frame_step and sample_fps exclude each other"):
        ExtractConfig(frame_step=2, sample_fps=4)


def test_settings_come_from_flags_before_set_before_the_file_before_defaults(tmp_path):
    (tmp_path / "vjepa_loc.toml").write_text(
        "[store]\npath = 's'\nshard_steps = 8\n[encoder]\nname = 'tiny'\n[extract]\nfit = 'crop'\nframe_step = 2\n"
    )
    settings = read_extract_settings(read_workspace(tmp_path), dataset="other.json", overrides=["extract.fit=letterbox", "levels=['pool4']"])
    assert settings.dataset == tmp_path / "other.json" and settings.store == "s"
    assert settings.encoder_name == "tiny" and settings.encoder_config == Config()
    assert (settings.recipe.fit, settings.recipe.frame_step, settings.recipe.overlap) == ("letterbox", 2, 0.0)
    assert settings.storage.shard_steps == 8 and settings.storage.levels == ("pool4",)


def test_vjepa2_is_the_default_encoder(tmp_path):
    settings = read_extract_settings(read_workspace(tmp_path))
    assert settings.encoder_name == "vjepa2" and settings.encoder_config.weights == "facebook/vjepa2-vitl-fpc64-256"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("extract.fits=crop", r"--set extract\.fits=crop: \[extract\] has no key 'fits'.*Did you mean 'fit'\?"),
        ("deadline=3", r"--set deadline=3: no section here .*Did you mean 'deadline_s'\?"),
        ("extract.fit=zoom", r"--set extract\.fit=zoom: \[extract\] .*fit: .*'zoom'"),
        ("encoder.weight=x", r"\[encoder\] has no key 'weight'.*Did you mean 'weights'\?"),
    ],
)
def test_a_misspelt_or_wrong_setting_is_one_line_that_names_it(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_extract_settings(read_workspace(tmp_path), overrides=[override])
    assert "\n" not in str(caught.value)


def test_an_unknown_encoder_is_answered_with_the_list(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown encoder 'tini', expected one of: .*tiny, .*vjepa2.*Did you mean 'tiny'\?"):
        read_extract_settings(read_workspace(tmp_path), encoder="tini")


def test_an_empty_store_flag_is_refused_and_does_not_mean_the_default(tmp_path):
    with pytest.raises(ConfigError, match="--store: expected a folder or a URL, got an empty name"):
        read_extract_settings(read_workspace(tmp_path), store="")
