"""Actors of a local Ray cluster and an S3 service: all videos once, also where an actor is killed in the middle."""

import importlib.util
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from features.claims import ClaimFolder, Owner, read_claim
from features.encoders.tiny import Config
from features.engines import ray as engine
from features.extract import extract_dataset
from features.extract_job import ExtractJob
from features.extract_settings import ExtractSettings
from features.outcome import ClipsEncoded, Outcome
from features.recipe import ExtractConfig
from features.schema import Storage
from features.store import open_store
from features.store_diff import diff_stores
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError

# Found and not imported: the engine sets what Ray reads when it is imported.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed: pip install 'vjepa-loc[ray]'"
)

RECIPE = ExtractConfig(threads=1, deadline_s=60)


@pytest.fixture(scope="module")
def videos(clip_writer, tmp_path_factory) -> list[Video]:
    folder = tmp_path_factory.mktemp("clips")
    return [Video(id=f"v{index}", file=clip_writer(folder / f"v{index}.mp4", num_frames=150 + 9 * index)) for index in range(6)]


@pytest.fixture(scope="module")
def alone(videos, tiny, tmp_path_factory):
    """The store of a single process, in a folder."""
    path = tmp_path_factory.mktemp("alone") / "store"
    extract_dataset(Dataset((), {video.id: video for video in videos}), path, tiny, RECIPE)
    return open_store(path)


def job_of(videos: list[Video], store: str) -> ExtractJob:
    return ExtractJob.of(videos, ExtractSettings(
        dataset=Path("dataset.json"), store=store, encoder_name="tiny", encoder_config=Config(), recipe=RECIPE, storage=Storage(),
    ))


def owners(url: str) -> dict[str, Owner]:
    """Video id -> who holds its claim."""
    place = open_store(url).place
    found = {entry.name: read_claim(place, entry.name) for entry in place.entries("claims")}
    return {name.removeprefix("claims/").removesuffix(".json"): record[0] for name, record in found.items() if record}


def ray_processes() -> list[str]:
    lines = (" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE)
    return [line for line in lines if "ray" in line]


def listening_outside() -> list[str]:
    """Addresses other than loopback on which a process that this one started listens."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += [
                f"{child.name()} {connection.laddr.ip}:{connection.laddr.port}" for connection in child.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.removeprefix("::ffff:").startswith("127.") and connection.laddr.ip != "::1"
            ]
        except psutil.NoSuchProcess:
            continue
    return found


def test_an_actor_that_is_killed_costs_no_video(videos, alone, url):
    killed, listening = [], []

    def kill_one(event):
        if isinstance(event, ClipsEncoded) and not killed:
            holders = owners(url)
            if holders.get(event.video_id):
                killed.append((event.video_id, holders[event.video_id]))
                listening.extend(listening_outside())
                os.kill(holders[event.video_id].pid, signal.SIGKILL)

    outcomes = engine.run(job_of(videos, url), kill_one, workers=2).outcomes
    assert {outcome.video_id: outcome.status for outcome in outcomes} == dict.fromkeys(alone.video_ids(), "done")
    assert killed and killed[0][0] in alone.video_ids()
    difference = diff_stores(open_store(url), alone, all_steps=True)
    assert difference.same, difference
    done = sorted(entry["id"] for entry in open_store(url).ledger.entries() if entry["outcome"] == "done")
    assert done == alone.video_ids(), "no video was encoded again after it was committed"
    assert owners(url) == {} and ray_processes() == []
    assert not listening, "nothing listens outside this machine"


def test_stop_ends_all_actors_and_another_engine_continues(videos, alone, url):
    stop = threading.Event()

    def stop_soon(event):
        if isinstance(event, Outcome) and event.status == "done":
            stop.set()

    first = [outcome.video_id for outcome in engine.run(job_of(videos, url), stop_soon, stop, workers=2).outcomes if outcome.status == "done"]
    assert 1 <= len(first) < len(videos) and owners(url) == {} and ray_processes() == []


def test_the_claims_of_an_owner_that_is_gone_are_given_back_and_no_others(alone, url, service):
    from features.store import create_or_open_store

    store = create_or_open_store(url, alone.encoding)
    elsewhere, other = Owner("elsewhere.01234567", 7, "1"), Owner("elsewhere.01234567", 8, "1")
    for video_id, owner in (("a", elsewhere), ("b", other)):
        raw = f'{{"owner": {{"machine": "{owner.machine}", "pid": {owner.pid}, "started": "1"}}, "token": "0", "id": "{video_id}"}}'
        assert store.place.create(f"claims/{video_id}.json", raw.encode())
    assert store.claim("a") is None and store.claim("b") is None, "another machine's process cannot be known to be gone"
    ClaimFolder(store.place).release_of(elsewhere, ["a", "b", "absent"])
    assert store.claim("a") is not None and store.claim("b") is None


def test_a_cluster_that_does_not_answer_is_one_line(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=127.0.0.1:1 does not answer"):
        engine.run(job_of(videos, str(tmp_path / "store")), lambda event: None, workers=1).outcomes


def test_an_actor_that_never_finds_room_is_not_waited_for(videos, alone, tmp_path):
    workers = int(os.cpu_count()) + 1
    outcomes = engine.run(job_of(videos[:2], str(tmp_path / "store")), lambda event: None, workers=workers).outcomes
    assert [outcome.status for outcome in outcomes] == ["done", "done"] and ray_processes() == []
