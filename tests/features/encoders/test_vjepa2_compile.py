"""Compiled layers give the tokens of layers that are not, compile once per shape, and say where nothing can be compiled."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from features.encoders._vjepa2_compile import LayerRunner
from features.encoders.vjepa2 import Config, Encoder
from tests.features.encoders.test_vjepa2_grids import checkpoint, noise, relative
from vjepa_loc.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    return str(checkpoint(tmp_path / "w", num_hidden_layers=3)[0])


def encoders(folder, dtype) -> tuple[Encoder, Encoder]:
    plain = Encoder(Config(weights=folder, dtype=dtype))
    try:
        return plain, Encoder(Config(weights=folder, dtype=dtype, compile="on"))
    except ConfigError as error:
        pytest.skip(str(error))


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def check(folder, dtype, sizes, allowed):
    plain, compiled = encoders(folder, dtype)
    for size in sizes:
        frames = noise(2, 8, *size)
        before = num_graphs()
        first = compiled.encode(frames)
        # All layers are one graph, and clips of one shape are one.
        assert num_graphs() - before <= 1
        after = num_graphs()
        assert torch.equal(compiled.encode(frames), first) and num_graphs() == after
        assert relative(first, plain.encode(frames)) < allowed
        short = noise(1, 4, *size)
        assert torch.equal(compiled.encode(short), plain.encode(short)) and num_graphs() == after


def test_a_shape_is_compiled_once_and_short_clips_are_not(folder):
    before = num_graphs()
    check(folder, "float32", [(32, 32)], 1e-5)
    assert num_graphs() > before


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_more_grids_than_torch_compiles_by_default(folder, dtype, allowed):
    # Eleven numbers of tokens; torch's own limit is 8 graphs of one function.
    check(folder, dtype, [(8, 8 * columns) for columns in range(1, 9)] + [(24, 24), (32, 24), (32, 32)], allowed)


def test_nothing_is_compiled_on_a_cpu_unless_asked(folder, capsys):
    assert not Encoder(Config(weights=folder))._runner.compiled and not LayerRunner("off", torch.device("cuda")).compiled
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that nothing can be compiled for is one that is not there")
def test_where_nothing_can_be_compiled_one_line_says_so(capsys):
    assert not LayerRunner("auto", torch.device("cuda")).compiled
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vjepa2: nothing can be compiled for cuda here (") and "CUDA" in line and line.endswith("); running without compilation")


def test_on_is_refused_without_a_compiler(folder, tmp_path):
    program = (
        "import sys; from features.encoders.vjepa2 import Config, Encoder\n"
        "from vjepa_loc.errors import ConfigError\n"
        "try: Encoder(Config(weights=sys.argv[1], compile='on'))\n"
        "except ConfigError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert result.stdout.startswith("encoder.compile: 'on' is not possible on cpu here (") and result.stdout.count("\n") == 1
    assert "no-such-compiler" in result.stdout or "compiler" in result.stdout.lower()


def test_threads_never_compile_a_known_shape_again(folder):
    _, compiled = encoders(folder, "float32")
    clips = [noise(1, 8, 32, 32), noise(1, 8, 8, 8)]
    expected = [compiled.encode(clip) for clip in clips]
    before = num_graphs()

    def encode(number: int) -> bool:
        return all(torch.equal(compiled.encode(clips[(number + k) % 2]), expected[(number + k) % 2]) for k in range(150))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(encode, range(4)))
    assert num_graphs() == before
