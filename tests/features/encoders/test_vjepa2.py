import json
import socket
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.encoders.vjepa2 import IMAGENET_MEAN, IMAGENET_STD, Config, Encoder
from vjepa_loc.errors import ConfigError, WeightsError

SMALL = {
    "patch_size": 8, "crop_size": 32, "frames_per_clip": 8, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
    "pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1,
}


@pytest.fixture(scope="module")
def model():
    from transformers import VJEPA2Config, VJEPA2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VJEPA2Model(VJEPA2Config(**SMALL)).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def noise(num_clips: int, num_frames: int, side: int = 32) -> torch.Tensor:
    shape = (num_clips, num_frames, side, side, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def direct(model, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
    """transformers' own call on pixels normalised in the plain way."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    pixels = ((frames_BTHWC3.float() / 255 - mean) / std).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        return model(pixel_values_videos=pixels, skip_predictor=True).last_hidden_state


@pytest.mark.parametrize("num_frames", [2, 6, 8, 16])
def test_tokens_equal_the_direct_call(model, folder, num_frames):
    encoder = Encoder(Config(weights=str(folder)))
    frames = noise(2, num_frames)
    tokens_BTHWC = encoder.encode(frames)
    assert tokens_BTHWC.shape == (2, num_frames // 2, 4, 4, 48) and tokens_BTHWC.dtype == torch.float32
    torch.testing.assert_close(tokens_BTHWC.reshape(2, -1, 48), direct(model, frames), atol=1e-5, rtol=1e-5)


def test_the_spec_is_the_checkpoint_s(folder):
    spec = Encoder(Config(weights=str(folder))).spec
    assert (spec.family, spec.weights, spec.revision) == ("vjepa2", str(folder), None)
    assert (spec.clip_frames, spec.tubelet, spec.patch_px, spec.input_height, spec.input_width, spec.channels) == (8, 2, 8, 32, 32, 48)
    assert (spec.mean, spec.std) == (IMAGENET_MEAN, IMAGENET_STD) and not spec.fixed_clip
    (folder / "video_preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}))
    other = Encoder(Config(weights=str(folder))).spec
    assert (other.mean, other.std) == ((0.5,) * 3, (0.25,) * 3) and other.digest == spec.digest


def test_a_clip_does_not_depend_on_its_batch(folder):
    encoder = Encoder(Config(weights=str(folder)))
    frames = noise(3, 8)
    together = encoder.encode(frames)
    assert torch.equal(encoder.encode(frames[2:])[0], together[2])
    assert torch.equal(encoder.encode(frames), together)


def test_bfloat16_is_near_and_no_other_encoder(folder):
    exact, fast = Encoder(Config(weights=str(folder))), Encoder(Config(weights=str(folder), dtype="bfloat16"))
    frames = noise(1, 8)
    expected, got = exact.encode(frames), fast.encode(frames)
    assert fast.spec == exact.spec and got.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(expected, got, dim=-1).min() > 0.999
    assert not torch.equal(expected, got)


def test_the_digest_is_of_the_encoder_s_tensors_alone(folder):
    before = Encoder(Config(weights=str(folder))).spec.digest
    assert Encoder(Config(weights=str(folder))).spec.digest == before
    tensors = load_file(folder / "model.safetensors")
    tensors["predictor.layernorm.weight"] += 1
    save_file(tensors, folder / "model.safetensors")
    assert Encoder(Config(weights=str(folder))).spec.digest == before
    tensors["encoder.layer.1.mlp.fc1.bias"][3] += 1
    save_file(tensors, folder / "model.safetensors")
    assert Encoder(Config(weights=str(folder))).spec.digest != before


def test_sharded_checkpoints_and_classifiers_hold_the_same_encoder(folder, model, tmp_path):
    digest = Encoder(Config(weights=str(folder))).spec.digest
    model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    assert Encoder(Config(weights=str(tmp_path / "sharded"))).spec.digest == digest
    tensors = {f"vjepa2.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    assert Encoder(Config(weights=str(folder))).spec.digest == digest


def test_the_predictor_is_never_loaded(folder):
    encoder = Encoder(Config(weights=str(folder)))
    held = dict(encoder._encoder.named_buffers())
    assert held and not list(encoder._encoder.parameters()) and not any("predictor" in name for name in held)
    in_checkpoint = sum(tensor.numel() for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith("encoder."))
    assert sum(tensor.numel() for tensor in held.values()) == in_checkpoint
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in held.values())


def test_every_tensor_has_its_place(folder, model):
    """No tensor of the encoder is left out: changing any of them changes a token."""
    frames = noise(1, 4)
    before = Encoder(Config(weights=str(folder))).encode(frames)
    original = load_file(folder / "model.safetensors")
    for name in [name for name in original if name.startswith("encoder.")]:
        tensor = original[name].clone()
        # Not in the same way for all tokens: a bias of the keys changes no product's softmax but through the positions.
        tensor.view(-1)[:: max(1, tensor.numel() // 7)] += 3.0
        save_file(original | {name: tensor}, folder / "model.safetensors")
        assert not torch.allclose(Encoder(Config(weights=str(folder))).encode(frames), before, atol=1e-6), name


@pytest.mark.parametrize(
    ("prefix", "extra"),
    [("", {}), ("vjepa2.", {"pooler.query_tokens": torch.zeros(1, 1, 48), "classifier.weight": torch.zeros(3, 48), "classifier.bias": torch.zeros(3)})],
    ids=["bare model", "classifier"],
)
def test_both_kinds_of_checkpoint_give_the_same_tokens(folder, model, prefix, extra):
    tensors = {f"{prefix}{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | extra, folder / "model.safetensors")
    frames = noise(1, 8)
    tokens = Encoder(Config(weights=str(folder))).encode(frames)
    torch.testing.assert_close(tokens.reshape(1, -1, 48), direct(model, frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("encoder.layer.1.norm1.weight"), r"1 of \d+ encoder tensors .* layer.1.norm1.weight: expected \(48,\), found none"),
        (lambda tensors: tensors.update({"encoder.extra": torch.zeros(2)}), r"extra: expected none, found \(2,\)"),
        (lambda tensors: tensors.update({"encoder.layernorm.bias": torch.zeros(2)}), r"layernorm.bias: expected \(48,\), found \(2,\)"),
        (lambda tensors: tensors.update({"head.weight": torch.zeros(2)}), r"1 tensors belong to no part of V-JEPA 2, the first is 'head.weight'"),
        (lambda tensors: tensors.update({"vjepa2.encoder.layernorm.bias": torch.zeros(48)}), r"expected the encoder's layernorm.bias once, found it twice"),
        (lambda tensors: tensors.update({"encoder.layernorm.bias": torch.zeros(48, dtype=torch.int32)}), r"layernorm.bias: expected floating-point numbers, found torch.int32"),
    ],
    ids=["missing", "unknown", "shape", "unknown part", "twice", "whole numbers"],
)
def test_every_tensor_must_fit(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        Encoder(Config(weights=str(folder)))


def test_other_checkpoints_are_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "videomae"}))
    with pytest.raises(WeightsError, match="expected a checkpoint of model_type vjepa2, got 'videomae'"):
        Encoder(Config(weights=str(folder)))
    for change, message in [
        ({"hidden_act": "relu"}, "expected hidden_act 'gelu', got 'relu'"),
        ({"num_attention_heads": 5}, "expected a hidden_size of whole heads, got 48 for 5 heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number from 1 on, got 0"),
        ({"hidden_size": "wide"}, "config.json: .*hidden_size"),
    ]:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(WeightsError, match=message):
            Encoder(Config(weights=str(folder)))
    (folder / "config.json").write_text(json.dumps(config | {"crop_size": 36}))
    with pytest.raises(WeightsError, match="crop_size of whole square patches"):
        Encoder(Config(weights=str(folder)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty: expected config.json in it, found none"):
        Encoder(Config(weights=str(tmp_path / "empty")))


def test_a_cut_weights_file_is_named(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="model.safetensors: cannot be read"):
        Encoder(Config(weights=str(folder)))


def test_frames_of_another_kind_are_refused(folder):
    encoder = Encoder(Config(weights=str(folder)))
    for frames in (noise(1, 8, side=48), noise(1, 3), noise(1, 8).float(), noise(1, 8)[0]):
        with pytest.raises(ConfigError, match=r"expected uint8 frames \(clips, multiple of 2, height, width, 3\) of whole patches of 8 px, at most 16"):
            encoder.encode(frames)


def test_another_input_size_is_another_encoding(folder):
    own, larger = Encoder(Config(weights=str(folder))), Encoder(Config(weights=str(folder), input_px=48))
    assert larger.spec.input_hw == (48, 48) and larger.spec.trained_hw == own.spec.input_hw == (32, 32)
    assert larger.encode(noise(1, 8, side=48)).shape == (1, 4, 6, 6, 48)
    assert torch.equal(larger.encode(noise(1, 8)), own.encode(noise(1, 8)))
    with pytest.raises(ConfigError, match="encoder.input_px: expected a multiple of the patch size 8, got 36"):
        Encoder(Config(weights=str(folder), input_px=36))


def test_absent_weights_without_a_network_are_one_quick_line(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start_s = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        Encoder(Config(weights="some-owner/vjepa2-not-here", revision="abc"))
    assert time.monotonic() - start_s < 30
    message = str(caught.value)
    for part in ("some-owner/vjepa2-not-here at revision abc", "hf download some-owner/vjepa2-not-here", "encoder.weights=/", "`make demo` needs no weights"):
        assert part in message
    assert "\n" not in message


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(WeightsError, match="expected a folder or a hub id .*which is neither"):
        Encoder(Config(weights=str(tmp_path / "nowhere")))


def test_a_folder_has_no_revision(folder):
    with pytest.raises(WeightsError, match="encoder.revision: expected none for the local folder"):
        Encoder(Config(weights=str(folder), revision="main"))


def test_a_cached_snapshot_is_used_with_its_commit(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache" / "models--owner--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / commit)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    for revision in (None, "main", commit):
        spec = Encoder(Config(weights="owner/model", revision=revision)).spec
        assert (spec.weights, spec.revision) == ("owner/model", commit)


def test_misspelt_settings_are_refused():
    with pytest.raises(ConfigError, match="Config.dtype"):
        Config(dtype="float16")
    with pytest.raises(ConfigError, match="Config.weight: "):
        Config(weight="x")


@pytest.mark.slow
def test_the_full_vit_l_equals_the_direct_call(tmp_path):
    from transformers import VJEPA2Config, VJEPA2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VJEPA2Model(VJEPA2Config()).eval()
    model.save_pretrained(tmp_path)
    encoder = Encoder(Config(weights=str(tmp_path)))
    frames = noise(1, 4, side=256)
    tokens_BTHWC = encoder.encode(frames)
    assert tokens_BTHWC.shape == (1, 2, 16, 16, 1024) and encoder.spec.clip_frames == 64
    torch.testing.assert_close(tokens_BTHWC.reshape(1, -1, 1024), direct(model, frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"image_mean": None, "image_std": None}, IMAGENET_MEAN, IMAGENET_STD),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,) * 3, (0.25,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"rescale_factor": 1 / 127.5}, tuple(x / 2 for x in IMAGENET_MEAN), tuple(x / 2 for x in IMAGENET_STD)),
    ],
    ids=["null", "one-number", "not-normalised", "rescaled"],
)
def test_pixels_follow_the_processor_s_file(folder, processor, mean, std):
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    spec = Encoder(Config(weights=str(folder))).spec
    assert spec.mean == pytest.approx(mean) and spec.std == pytest.approx(std)


def test_a_deviation_that_gives_no_numbers_is_refused(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_std": [0, 1, 1]}))
    with pytest.raises(WeightsError, match="its processor's configuration cannot be used"):
        Encoder(Config(weights=str(folder)))
