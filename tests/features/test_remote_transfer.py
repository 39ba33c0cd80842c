"""`store push` and `store pull`: what arrives, what is not sent twice, and what is refused."""

import time

import numpy as np
import pytest

from features.store import create_or_open_store, open_store
from features.store_gc import collect_garbage
from features.store_transfer import transfer_store
from tests.features.store_builder import add_video, read_all, simulated_tokens, small_encoding, small_store
from vjepa_loc.errors import StoreError, StoreMismatchError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def local(tmp_path):
    store = small_store(tmp_path / "store")
    for number, video_id in enumerate("ab"):
        add_video(store, video_id, simulated_tokens(37, seed=number))
    return store


def same_videos(a, b) -> bool:
    assert a.video_ids() == b.video_ids()
    for video_id in a.video_ids():
        ours, theirs = read_all(a, video_id), read_all(b, video_id)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        assert a.commit_of(video_id).to_bytes() == b.commit_of(video_id).to_bytes()
    return True


def data_requests(service, method):
    return [name for name in service.sent(method) if is_of_a_video(name)]


def is_of_a_video(name) -> bool:
    return "/videos/" in name and name.count("/") > 5


def test_what_is_pushed_and_pulled_is_the_same(service, url, local, tmp_path):
    pushed = transfer_store(local, url)
    sizes = sum(stamp.size for video_id in "ab" for stamp in local.commit_of(video_id).generation_files.values())
    assert pushed.copied == ["a", "b"] and pushed.ok and pushed.num_bytes == sizes
    assert same_videos(open_store(url), local) and open_store(url).verify().ok
    pulled = transfer_store(open_store(url), tmp_path / "copy", ["b", "a"])
    assert pulled.copied == ["b", "a"] and pulled.num_bytes == sizes
    assert same_videos(open_store(tmp_path / "copy"), local) and open_store(tmp_path / "copy").verify().ok
    for place in (url, tmp_path / "copy"):
        service.requests.clear()
        again = transfer_store(local, place)
        assert again.present == ["a", "b"] and again.num_bytes == 0 and not data_requests(service, "PUT")
    assert not [name for name in service.names(url) if name.startswith(("claims/", "staging/"))]
    assert not list((tmp_path / "copy/staging").iterdir()) and not list((tmp_path / "copy/claims").iterdir())


def break_after(service, number, method):
    """From the request with that number on, requests for the data of videos are refused."""
    seen = []

    def refuse(request):
        if request.method != method or not is_of_a_video(request.name):
            return False
        seen.append(request.name)
        return len(seen) > number

    service.refuse = refuse


def test_an_interrupted_push_sends_nothing_twice(service, url, local):
    files = len(local.commit_of("a").generation_files) + len(local.commit_of("b").generation_files)
    create_or_open_store(url, local.encoding)
    service.requests.clear()
    break_after(service, 40, "PUT")
    with pytest.raises(StoreError, match="the store s3://.*: .* is not allowed"):
        transfer_store(local, url)
    service.refuse = lambda request: False
    arrived = {name for name in service.names(url) if name.startswith("tokens.zarr/videos/") and name.count("/") > 3}
    assert 36 < len(arrived) < files and open_store(url).video_ids() == ["a"]
    service.requests.clear()
    resumed = transfer_store(local, url)
    assert resumed.present == ["a"] and resumed.copied == ["b"]
    sent = {name.removeprefix("features/of-a/") for name in data_requests(service, "PUT")}
    # The description of the video goes again: it tells gc that somebody is at work.
    group = f"tokens.zarr/{local.commit_of('b').path}/zarr.json"
    wanted = {f"tokens.zarr/{local.commit_of('b').path}/{name}" for name in local.commit_of("b").generation_files}
    assert sent - {group} == wanted - arrived - {group}
    assert len(sent) < files - 35 and same_videos(open_store(url), local)


def test_what_an_upload_left_long_ago_is_not_gone_on_with(service, url, local, monkeypatch):
    """`gc` may have listed it as debris and be about to remove it."""
    create_or_open_store(url, local.encoding)
    break_after(service, 20, "PUT")
    with pytest.raises(StoreError):
        transfer_store(local, url, ["a"])
    service.refuse = lambda request: False
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 13 * 3600)
    service.requests.clear()
    assert transfer_store(local, url, ["a"]).copied == ["a"]
    assert len(data_requests(service, "PUT")) == len(local.commit_of("a").generation_files)
    committed = open_store(url).commit_of("a")
    assert committed.path != local.commit_of("a").path and transfer_store(local, url, ["a"]).present == ["a"]
    monkeypatch.setattr(time, "time", lambda: now() + 40 * 3600)
    assert collect_garbage(url).removed == (f"tokens.zarr/{local.commit_of('a').path}",) and open_store(url).verify().ok


def test_an_interrupted_pull_fetches_nothing_twice(service, url, local, tmp_path):
    transfer_store(local, url)
    service.requests.clear()
    break_after(service, 40, "GET")
    with pytest.raises(StoreError, match="the store s3://.*: reading .* is not allowed"):
        transfer_store(open_store(url), tmp_path / "copy")
    service.refuse = lambda request: False
    [staged] = (tmp_path / "copy/staging").glob("pull-*")
    whole = sorted(file for file in staged.rglob("*") if file.is_file())
    # A file that was cut off is fetched again, the others are not.
    whole[0].write_bytes(whole[0].read_bytes()[:-1])
    service.requests.clear()
    assert transfer_store(open_store(url), tmp_path / "copy").copied == ["b"]
    second = data_requests(service, "GET")
    assert len(second) == len(set(second)) == 2 * len(local.commit_of("b").generation_files) - 40 + 1
    assert same_videos(open_store(tmp_path / "copy"), local)


def test_a_pull_that_was_stopped_before_its_commit_goes_on(service, url, local, tmp_path, monkeypatch):
    transfer_store(local, url)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        def killed(*_):
            raise KeyboardInterrupt

        patched.setattr("features.store_transfer.publish_commit", lambda store, commit, replaced, put: (
            put(f"tokens.zarr/{commit.path}"), killed()))
        transfer_store(open_store(url), tmp_path / "copy", ["a"])
    assert "a" not in open_store(tmp_path / "copy")
    service.requests.clear()
    assert transfer_store(open_store(url), tmp_path / "copy", ["a"]).copied == ["a"]
    assert not data_requests(service, "GET") and open_store(tmp_path / "copy").verify().ok


def test_what_the_target_holds_is_kept_or_replaced(url, local):
    transfer_store(local, url, ["a"])
    add_video(local, "a", simulated_tokens(5), replace=True)
    report = transfer_store(local, url)
    assert report.different == ["a"] and report.copied == ["b"] and not report.ok
    assert open_store(url).summaries()["a"].steps == 37
    with open_store(url).claim("a"):
        assert transfer_store(local, url, replace=True).busy == ["a"]
    assert transfer_store(local, url, replace=True).copied == ["a"] and same_videos(open_store(url), local)
    assert open_store(url).verify().ok


def test_damaged_videos_are_named_and_the_others_arrive(service, url, local, tmp_path):
    path = local.path / "tokens.zarr" / local.commit_of("a").path / "tokens/c/1/0/0/0"
    raw = path.read_bytes()
    path.write_bytes(raw[:30] + bytes([raw[30] ^ 1]) + raw[31:])
    report = transfer_store(local, url)
    assert report.copied == ["b"] and list(report.damaged) == ["a"]
    assert "tokens/c/1/0/0/0: expected" in report.damaged["a"] and "store repair" in report.damaged["a"]
    assert open_store(url).video_ids() == ["b"]
    # Two shards of one length, exchanged: size and crc32c are right, the chunks are not.
    path.write_bytes(raw)
    transfer_store(local, url)
    other = path.parents[3] / "0/0/0/0"
    name, other_name = (f"tokens.zarr/{local.commit_of('a').path}/tokens/c/{shard}/0/0/0" for shard in (1, 0))
    service.overwrite(url, name, other.read_bytes())
    service.overwrite(url, other_name, raw)
    pulled = transfer_store(open_store(url), tmp_path / "copy")
    assert pulled.copied == ["b"] and "tokens/c/0/0/0/0: expected chunks whose checksums" in pulled.damaged["a"]
    assert open_store(tmp_path / "copy").video_ids() == ["b"]
    assert not list((tmp_path / "copy/tokens.zarr/videos/a").glob("*/"))
    service.delete(url, name)
    assert "is missing" in transfer_store(open_store(url), tmp_path / "copy").damaged["a"]


def test_what_does_not_fit_is_refused(url, local, tmp_path):
    create_or_open_store(url, small_encoding(channels=23))
    with pytest.raises(StoreMismatchError, match="channels"):
        transfer_store(local, url)
    with pytest.raises(StoreError, match="has no valid video 'aa'. Did you mean 'a'"):
        transfer_store(local, tmp_path / "copy", ["aa"])
