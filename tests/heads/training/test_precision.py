import pytest

from heads.training import precision


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx512_bf16 sse", True), ("fpu avx2 sse", False)])
def test_auto_takes_bf16_where_the_cpu_has_it(tmp_path, monkeypatch, flags, expected):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "CPU_INFO", info)
    precision._cpu_has_bf16.cache_clear()
    assert precision.uses_bf16("auto", "cpu") is expected
    precision._cpu_has_bf16.cache_clear()


def test_a_cpu_that_tells_nothing_computes_in_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "missing")
    precision._cpu_has_bf16.cache_clear()
    assert not precision.uses_bf16("auto", "cpu")
    precision._cpu_has_bf16.cache_clear()


def test_what_is_asked_for_goes_before_what_is_there():
    assert precision.uses_bf16("bf16", "cpu") and not precision.uses_bf16("fp32", "cuda")
