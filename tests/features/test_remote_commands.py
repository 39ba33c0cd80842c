"""The commands on a store by URL: extract, train, evaluate, and all of `store`."""

import json

import pytest

import cli
from features.store import open_store
from tests.features.conftest import write_clip
from tests.features.store_builder import add_video, simulated_tokens, small_store

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """`run("store", "info")` -> (exit code, standard output, standard error), in a workspace of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_store_commands_take_a_url(service, url, run, tmp_path):
    local = small_store("features")
    for video_id in "ab":
        add_video(local, video_id, simulated_tokens(20))
    (tmp_path / "work/vjepa_loc.toml").write_text("[store]\npath = 'features'\ncache = 'copies'\ncache_gib = 1\n")
    code, out, _ = run("store", "push", url)
    assert code == 0 and out.startswith("2 copied, 0 present; ") and out.endswith(" sent\n")
    assert json.loads(run("store", "push", url, "--json")[1])["present"] == ["a", "b"]
    assert json.loads(run("store", "info", url, "--json")[1]) == json.loads(run("store", "info", "--json")[1])
    assert list(json.loads(run("store", "list", url, "--json")[1])) == ["a", "b"]
    assert run("store", "diff", url, "features")[0] == 0
    code, out, _ = run("store", "verify", url, "--sample", "1", "--json")
    assert code == 0 and json.loads(out).items() >= {"videos": 2, "checked": 1}.items()
    assert json.loads(run("store", "subset", f"{url}-small", "--levels", "pool4", "--store", url, "--json")[1])["copied"] == ["a", "b"]
    assert open_store(f"{url}-small").video("a").levels == ("pool4",)
    assert json.loads(run("store", "convert", f"{url}-cold", "--compression", "zstd", "--store", url, "--json")[1])["copied"] == ["a", "b"]
    # Values were read: from copies in the folder that the workspace names.
    assert list((tmp_path / "work/copies/stores").rglob("tokens/c/0/0/0/0")) and not (tmp_path / "cache").exists()
    assert json.loads(run("store", "merge", f"{url}-all", url, "--json")[1])["copied"] == ["a", "b"]
    assert json.loads(run("store", "gc", url, "--json")[1]) == {"removed": [], "bytes": 0}
    code, out, _ = run("store", "pull", f"{url}-cold", "--store", "back", "--video", "a", "--json")
    assert code == 0 and json.loads(out)["copied"] == ["a"] and json.loads(run("store", "verify", "back", "--json")[1])["ok"]
    add_video(local, "a", simulated_tokens(5), replace=True)
    code, out, err = run("store", "push", url)
    assert code == 1 and "1 different" in out and "other content under these ids, which was kept (--replace replaces it): a" in err
    assert run("store", "push", url, "--replace")[0] == 0


def test_a_store_by_url_is_extracted_trained_and_evaluated(service, url, run, tmp_path):
    videos, events = [], []
    for name, split in [("a", "train"), ("b", "val")]:
        write_clip(tmp_path / "work" / f"{name}.mp4", num_frames=24)
        videos.append({"id": name, "file": f"{name}.mp4", "fps": 25.0, "num_frames": 24, "width": 144, "height": 64, "split": split})
        boxes = {str(frame): [10, 10, 40, 50] for frame in range(4, 12)}
        events.append({"video_id": name, "label": "take", "start_frame": 4, "end_frame": 12, "boxes": boxes})
    dataset = {"format": "vjepa_loc", "version": 1, "labels": ["take"], "videos": videos, "events": events}
    (tmp_path / "work/dataset.json").write_text(json.dumps(dataset))
    (tmp_path / "work/vjepa_loc.toml").write_text(
        f"[data]\ndataset = 'dataset.json'\n[store]\npath = '{url}'\n[encoder]\nname = 'tiny'\n[extract]\nthreads = 1\n"
    )
    assert run("extract")[0] == 0
    code, out, _ = run("extract", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["skipped"] == ["a", "b"]
    # A changed file is replaced under If-Match.
    write_clip(tmp_path / "work/b.mp4", num_frames=24, options={"crf": "45"})
    code, out, _ = run("extract", "--on-mismatch", "redo", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["done"] == ["b"]
    code, out, err = run("train-head", "--head", "mean_box", "--epochs", "1")
    assert code == 0, err
    assert url in (tmp_path / "work" / out.strip() / "run.json").read_text()
    code, out, err = run("evaluate", "--split", "val", "--json")
    assert code == 0 and "tal" in out, err
    service.refuse = lambda request: True
    code, _, err = run("evaluate", "--split", "val")
    assert code == 2 and len(err.splitlines()) == 1 and "is not allowed" in err
