"""`benchmarks/encoder.py` at toy size on a CPU, as a user runs it."""

import json

import encoder
import pytest
import torch
from encoder_cost import clip_flops, matmul_flops_per_s

SETTINGS = {
    "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "crop_size": 32, "patch_size": 8, "frames_per_clip": 8,
    "pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1,
}
TOY = ["--device", "cpu", "--threads", "1", "--rounds", "2", "--tflops", "0.05", *(part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}"))]


@pytest.fixture
def toy(tmp_path):
    return encoder.random_weights(tmp_path, SETTINGS)


def test_every_way_is_timed_and_equal(capsys):
    assert encoder.main([*TOY, "--batches", "1,2", "--dtype", "bfloat16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["clip"] == [8, 32, 32] and result["flops_per_s"] == 0.05e12
    ways = ["ours", "transformers", "transformers, default forward"]
    assert [(speed["way"], speed["batch"]) for speed in result["speeds"]] == [(way, batch) for batch in (1, 2) for way in ways]
    for speed in result["speeds"]:
        assert speed["clips_per_s"] > 0 and not speed["missing"] and speed["peak_bytes"] is None
        assert speed["share_of_ideal"] == pytest.approx(speed["clips_per_s"] * result["flops"] / result["flops_per_s"])
        assert (speed["against_encoder"] is None) == (speed["way"] == "transformers")
    errors = {(equality["way"], equality["dtype"]): equality for equality in result["equality"]}
    assert set(errors) == {("ours", "float32"), ("ours", "bfloat16"), ("transformers", "bfloat16")}
    assert errors["ours", "float32"]["relative_error"] < 1e-5 and errors["ours", "float32"]["min_cosine"] > 0.999999
    assert 0 < errors["ours", "bfloat16"]["relative_error"] < errors["transformers", "bfloat16"]["relative_error"] < 0.05


def test_the_table_says_on_what_it_was_measured(capsys, toy):
    assert encoder.main([*TOY, "--weights", toy, "--frames", "4", "--only", "ours,transformers", "--no-equality"]) == 0
    out = capsys.readouterr().out
    assert "clips of 4 x 32 x 32" in out and "ideal 0.05 TFLOP/s" in out and "2 rounds" in out and "float32" in out
    assert "| ours | 1 |" in out and "| transformers | 1 |" in out and "default forward |" in out.splitlines()[4]


def test_arithmetic_of_the_vit_l(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vjepa2"}))
    (tmp_path / "model.safetensors").touch()
    # 4.95 TFLOP of matrix products in the layers, 6.60 of attention, 0.03 of the patch embedding.
    assert clip_flops(str(tmp_path), (64, 256, 256)) == pytest.approx(11.57e12, rel=0.002)
    assert clip_flops(str(tmp_path), (64, 192, 336)) == pytest.approx(11.3e12, rel=0.005)


def test_the_rate_of_a_matrix_product_is_measured():
    assert 1e8 < matmul_flops_per_s(torch.device("cpu"), torch.float32) < 1e14


def test_wrong_weights_are_one_line(capsys):
    assert encoder.main([*TOY, "--weights", "no such folder"]) == 2
    assert "error: encoder.weights: expected a folder or a hub id" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        encoder.main([*TOY, "--rounds", "0"])
