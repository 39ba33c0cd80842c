"""The families that run through transformers: their tokens against the direct call, their checkpoints, their refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.encoders._family_encoder import FamilyEncoder
from tests import toy_checkpoints as toys
from vjepa_loc.errors import ConfigError, WeightsError
from vjepa_loc.plugins import load_plugin

FAMILIES = ("videomae", "timesformer", "vivit", "videoprism", "dinov3")
# The encoder of a toy model, by its path in it.
INSIDE = {"videomae": "videomae", "timesformer": "timesformer", "vivit": "vivit", "videoprism": "", "dinov3": ""}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# A second name of a tensor that the toy holds already.
AGAIN = {
    "videomae": "layernorm.bias", "timesformer": "layernorm.bias", "vivit": "layernorm.bias",
    "videoprism": "vision_model.layernorm2.bias", "dinov3": "model.layer.0.norm1.bias",
}
# Mean and deviation of RGB in 0..1, worked by hand: ViViT's (x / 127.5 - 1 - 0.5) / 0.5 = (v - 0.75) / 0.25.
PIXELS = {
    "videomae": IMAGENET, "timesformer": ((0.45,) * 3, (0.225,) * 3), "vivit": ((0.75,) * 3, (0.25,) * 3),
    "videoprism": ((0.0,) * 3, (1.0,) * 3), "dinov3": IMAGENET,
}
# clip_frames, fixed_clip, tubelet, patch_px, input_height, input_width, channels
GEOMETRY = {
    "videomae": (8, True, 2, 8, 24, 40, 48), "timesformer": (4, True, 1, 8, 24, 24, 48), "vivit": (8, True, 2, 8, 24, 40, 48),
    "videoprism": (6, True, 1, 9, 27, 45, 48), "dinov3": (16, False, 1, 8, 32, 32, 48),
}


def build(name: str, folder: Path, **settings) -> FamilyEncoder:
    module = load_plugin("features.encoders", name, "encoder")
    return module.Encoder(module.Config(**{"weights": str(folder), **toys.OPTIONS.get(name, {}), **settings}))


def encoder_of(name: str, model: torch.nn.Module) -> torch.nn.Module:
    return model.get_submodule(INSIDE[name])


def noise(encoder: FamilyEncoder, num_clips: int = 2) -> torch.Tensor:
    shape = (num_clips, encoder.spec.clip_frames, *encoder.spec.input_hw, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def pixels_of(name: str, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(value) for value in PIXELS[name])
    return ((frames_BTHWC3.float() / 255 - mean) / std).permute(0, 1, 4, 2, 3)


def direct_tokens(name: str, model: torch.nn.Module, frames_BTHWC3: torch.Tensor, geometry: tuple) -> torch.Tensor:
    """transformers' own call; each token is then looked up by the place that the architecture's code gives it."""
    clip_frames, _, tubelet, patch_px, height, width, channels = geometry
    num_steps, rows, columns = clip_frames // tubelet, height // patch_px, width // patch_px
    pixels = pixels_of(name, frames_BTHWC3)
    tokens_BTHWC = torch.empty(len(pixels), num_steps, rows, columns, channels)
    with torch.no_grad():
        found = model(pixels.flatten(0, 1) if name == "dinov3" else pixels).last_hidden_state
    for clip, step, row, column in np.ndindex(len(pixels), num_steps, rows, columns):
        place = {
            "videomae": (clip, (step * rows + row) * columns + column),
            "timesformer": (clip, 1 + (row * columns + column) * num_steps + step),
            "vivit": (clip, 1 + (step * rows + row) * columns + column),
            "videoprism": (clip, (step * rows + row) * columns + column),
            "dinov3": (clip * num_steps + step, 1 + 4 + row * columns + column),
        }[name]
        tokens_BTHWC[clip, step, row, column] = found[place]
    return tokens_BTHWC


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return toys.MODELS[name]()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_tokens_equal_the_direct_call(name, model, folder):
    encoder = build(name, folder)
    frames = noise(encoder)
    expected = direct_tokens(name, encoder_of(name, model), frames, GEOMETRY[name])
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=1e-5)


def test_the_spec_is_the_checkpoint_s(name, folder):
    spec = build(name, folder).spec
    found = (spec.clip_frames, spec.fixed_clip, spec.tubelet, spec.patch_px, spec.input_height, spec.input_width, spec.channels)
    assert found == GEOMETRY[name] and (spec.mean, spec.std) == PIXELS[name]
    assert (spec.family, spec.weights, spec.revision, spec.any_grid) == (name, str(folder), None, name == "dinov3")


def test_bfloat16_is_near_and_no_other_encoder(name, folder):
    exact, fast = build(name, folder), build(name, folder, dtype="bfloat16")
    frames = noise(exact, 1)
    expected, got = exact.encode(frames), fast.encode(frames)
    assert fast.spec == exact.spec and got.dtype == torch.float32 and fast.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(expected, got, dim=-1).min() > 0.999
    assert not torch.equal(expected, got)


def test_only_the_encoder_is_in_memory(name, model, folder):
    encoder = build(name, folder)
    expected = sum(parameter.numel() for parameter in encoder_of(name, model).parameters())
    assert sum(parameter.numel() for parameter in encoder._model.parameters()) == expected
    assert all(not parameter.requires_grad for parameter in encoder._model.parameters()) and not encoder._model.training


def test_nothing_is_printed_while_loading(name, folder, capfd):
    build(name, folder)
    assert capfd.readouterr() == ("", "")


BEHIND_A_HEAD = [
    ("videomae", "VideoMAEForVideoClassification"), ("videomae", "VideoMAEModel"), ("timesformer", "TimesformerModel"),
    ("vivit", "VivitModel"), ("videoprism", "VideoPrismForVideoClassification"), ("videoprism", "VideoPrismVideoModel"),
    ("videoprism", "VideoPrismClipModel"),
]


@pytest.mark.parametrize(("name", "kind"), BEHIND_A_HEAD)
def test_the_same_encoder_is_found_in_every_kind_of_checkpoint(name, kind, tmp_path):
    plain, other = toys.MODELS[name](), getattr(toys, f"{name}_model")(kind)
    inside = next(module for path, module in other.named_modules() if type(module) is type(encoder_of(name, plain)))
    inside.load_state_dict(encoder_of(name, plain).state_dict(), strict=False)
    plain.save_pretrained(tmp_path / "plain")
    other.save_pretrained(tmp_path / "other")
    expected, got = build(name, tmp_path / "plain"), build(name, tmp_path / "other")
    assert got.spec.digest == expected.spec.digest
    frames = noise(expected, 1)
    assert torch.equal(got.encode(frames), expected.encode(frames))


def test_sharded_checkpoints_hold_the_same_encoder(name, model, folder, tmp_path):
    model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    whole, parts = build(name, folder).spec, build(name, tmp_path / "sharded").spec
    assert parts == whole.model_copy(update={"weights": str(tmp_path / "sharded")})


def test_pickled_checkpoints_hold_the_same_encoder(name, folder):
    before = build(name, folder).spec
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert build(name, folder).spec == before


def test_the_digest_is_of_the_encoder_s_tensors_alone(name, folder):
    before = build(name, folder).spec.digest
    tensors = load_file(folder / "model.safetensors")
    beside = [key for key in tensors if key.startswith(("decoder.", "classifier."))]
    change_tensors(folder, lambda found: [found[key].add_(1) for key in beside])
    assert build(name, folder).spec.digest == before
    inside = next(key for key in tensors if key not in beside and key.endswith(".bias"))
    change_tensors(folder, lambda found: found[inside].add_(1))
    assert build(name, folder).spec.digest != before


@pytest.mark.parametrize("kind", ["missing", "unknown", "shape", "elsewhere", "twice"])
def test_every_tensor_must_fit(name, folder, kind):
    last_norm = {"videoprism": "layernorm2.bias", "dinov3": "norm.bias"}.get(name, "layernorm.bias")
    key = f"{INSIDE[name]}.{last_norm}".lstrip(".")
    change, message = {
        "missing": (lambda found: found.pop(key), r"1 encoder tensors do not fit config.json; .*bias: missing; download"),
        "unknown": (lambda found: found.update({f"{key}_2": torch.zeros(2)}), "1 encoder tensors .*bias_2: not in the architecture"),
        "shape": (lambda found: found.update({key: torch.zeros(2)}), r"bias: expected \(48,\), found \(2,\)"),
        "elsewhere": (lambda found: found.update({"neck.bias": torch.zeros(2)}), "1 of its tensors belong to no known .* neck.bias"),
        "twice": (lambda found: found.update({AGAIN[name]: torch.zeros(48)}), "expected .*bias once, found it twice; download"),
    }[kind]
    change_tensors(folder, change)
    with pytest.raises(WeightsError, match=message) as caught:
        build(name, folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_checkpoints_without_its_encoder_are_refused(name, folder):
    save_file({"classifier.bias": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="expected an encoder's tensors, found none"):
        build(name, folder)


def test_other_families_are_refused(name, folder):
    change_config(folder, model_type="vjepa2")
    with pytest.raises(WeightsError, match=rf"expected a checkpoint of model_type {name}.*, got 'vjepa2'"):
        build(name, folder)


@pytest.mark.parametrize(
    "values", [{"hidden_size": "many"}, {"num_channels": 1}, {"num_attention_heads": 5}, {"num_attention_heads": 0}, {"hidden_act": "none such"}],
    ids=str,
)
def test_configurations_that_make_no_model_are_one_line(name, folder, values):
    change_config(folder, **values)
    with pytest.raises(WeightsError) as caught:
        build(name, folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_how_transformers_would_run_a_model_changes_nothing(name, folder):
    before = build(name, folder)
    clip = noise(before, 1)
    change_config(folder, return_dict=False, output_hidden_states=True, output_attentions=True, _attn_implementation="flash_attention_2")
    assert torch.equal(build(name, folder).encode(clip), before.encode(clip))


def test_other_frames_are_refused(name, folder):
    encoder = build(name, folder)
    frames = noise(encoder, 1)
    spec = encoder.spec
    tall = frames[:, :, : spec.patch_px].repeat(1, 1, 30, 1, 1)
    wrong = [frames.float(), frames[0], frames[:, :, :-1], frames[..., :2], frames[:, :0], tall]
    if spec.fixed_clip:
        wrong += [frames[:, : spec.tubelet], frames.repeat(1, 2, 1, 1, 1)]
    for given in wrong:
        with pytest.raises(ConfigError, match=rf"encoder {name}: expected uint8 frames \(clips, .* got torch"):
            encoder.encode(given)


def test_frames_of_dinov3_know_nothing_of_each_other(tmp_path):
    toys.dinov3_model().save_pretrained(tmp_path)
    encoder = build("dinov3", tmp_path)
    frames = noise(encoder, 1)
    together = encoder.encode(frames)
    for number in range(frames.shape[1]):
        assert torch.equal(encoder.encode(frames[:, number : number + 1])[0, 0], together[0, number])


def test_angles_of_dinov3_stay_in_float32(tmp_path):
    toys.dinov3_model().save_pretrained(tmp_path)
    encoder = build("dinov3", tmp_path, dtype="bfloat16")
    assert {buffer.dtype for buffer in encoder._model.buffers()} == {torch.float32}
    assert {parameter.dtype for parameter in encoder._model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("cells", [(2, 6), (4, 3), (1, 16)])
def test_dinov3_on_rectangles_is_the_direct_call(tmp_path, cells):
    model = toys.dinov3_model()
    model.save_pretrained(tmp_path)
    encoder = build("dinov3", tmp_path)
    rows, columns = cells
    frames = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, rows * 8, columns * 8, 3), np.uint8))
    with torch.no_grad():
        expected = model(pixels_of("dinov3", frames)[0]).last_hidden_state[:, 5:].reshape(1, 3, rows, columns, 48)
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=1e-5)


def test_dinov3_refuses_a_size_of_broken_patches_and_convnexts(tmp_path):
    toys.dinov3_model().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="encoder.input_px: expected a multiple of the patch of .*, 8 px, got 36"):
        build("dinov3", tmp_path, input_px=36)
    change_config(tmp_path, model_type="dinov3_convnext")
    with pytest.raises(WeightsError, match="got 'dinov3_convnext'; a ConvNeXt has no grid of patches to store: take a ViT"):
        build("dinov3", tmp_path)


def test_gated_and_deeper_dinov3_load_too(tmp_path):
    model = toys.dinov3_model(use_gated_mlp=True, hidden_act="silu", key_bias=True, num_register_tokens=0)
    model.save_pretrained(tmp_path)
    encoder = build("dinov3", tmp_path)
    frames = noise(encoder, 1)
    with torch.no_grad():
        expected = model(pixels_of("dinov3", frames)[0]).last_hidden_state[:, 1:].reshape(1, 16, 4, 4, 48)
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=1e-5)


def test_timesformer_with_joint_attention_and_without_time(tmp_path):
    model = toys.timesformer_model(attention_type="joint_space_time")
    model.save_pretrained(tmp_path)
    encoder = build("timesformer", tmp_path)
    frames = noise(encoder)
    expected = direct_tokens("timesformer", model.timesformer, frames, GEOMETRY["timesformer"])
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=1e-5)
    toys.timesformer_model(attention_type="space_only").save_pretrained(tmp_path / "still")
    with pytest.raises(WeightsError, match="attention_type divided_space_time or joint_space_time, got 'space_only'"):
        build("timesformer", tmp_path / "still")


def test_a_classifier_of_videomae_has_no_final_norm(tmp_path):
    model = toys.videomae_model("VideoMAEForVideoClassification", use_mean_pooling=True)
    model.save_pretrained(tmp_path)
    encoder = build("videomae", tmp_path)
    frames = noise(encoder)
    expected = direct_tokens("videomae", model.videomae, frames, GEOMETRY["videomae"])
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("videomae", {"image_size": [24, 41]}), ("videomae", {"patch_size": [8, 4]}), ("videomae", {"num_frames": 7}),
        ("timesformer", {"image_size": 25}), ("timesformer", {"image_size": [24, 24]}), ("vivit", {"tubelet_size": [2, 8, 4]}),
        ("vivit", {"num_frames": 9}), ("videoprism", {"tubelet_size": [2, 9, 9]}), ("videoprism", {"image_size": 28}),
        ("dinov3", {"patch_size": [8, 4]}),
    ],
)
def test_geometries_that_cannot_be_stored_are_refused(name, values, tmp_path):
    toys.MODELS[name]().save_pretrained(tmp_path)
    change_config(tmp_path, **values)
    with pytest.raises(WeightsError, match=rf"encoder {name} expected .*, got .*; choose another checkpoint"):
        build(name, tmp_path)
