from collections import Counter

import numpy as np
import pytest

from vjepa_loc import splitting
from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import ConfigError, DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.splitting import draw_folds, draw_splits

LABELS = ("often", "rare", "never")


def dataset(num_videos=40, group_size=1, splits=()):
    rng = np.random.default_rng(0)
    videos, events = [], []
    for index in range(num_videos):
        name = f"v{index}"
        group = f"g{index // group_size}" if group_size > 1 else None
        videos.append(Video(name, num_frames=100, group=group, split=splits[index] if index < len(splits) else None))
        events += [Event(name, "often", 0, 10)] * int(rng.integers(0, 6))
        events += [Event(name, "rare", 0, 10)] * (index % 10 == 0)
    return Dataset(LABELS, index_videos(videos), events)


def split_of(drawn):
    return {video.id: video.split for video in drawn.videos.values()}


def events_per_split(drawn):
    return Counter((drawn.videos[event.video_id].split, event.label) for event in drawn.events)


def test_every_video_has_a_split_and_the_shares_hold():
    whole = dataset()
    drawn = draw_splits(whole, {"train": 6, "val": 2, "test": 2})
    assert Counter(split_of(drawn).values()) == {"train": 24, "val": 8, "test": 8}
    assert drawn.events == whole.events and list(drawn.videos) == list(whole.videos)


def test_rare_labels_are_shared_out():
    for seed in range(5):
        drawn = draw_splits(dataset(), {"train": 0.5, "val": 0.25, "test": 0.25}, seed)
        counts = events_per_split(drawn)
        assert (counts["train", "rare"], counts["val", "rare"], counts["test", "rare"]) == (2, 1, 1)
        total = sum(count for (_, label), count in counts.items() if label == "often")
        assert counts["train", "often"] == pytest.approx(total / 2, abs=2)
    # Without stratification some seed puts the four rare ones elsewhere.
    plain = [events_per_split(draw_splits(dataset(), {"train": 2, "val": 1, "test": 1}, seed, stratified=False)) for seed in range(8)]
    assert any(counts["train", "rare"] != 2 for counts in plain)


def test_of_several_drawings_the_most_even_is_kept(monkeypatch):
    whole, shares = dataset(13, group_size=3), {"train": 0.6, "val": 0.4}

    def unevenness(seed):
        drawn = draw_splits(whole, shares, seed)
        got = events_per_split(drawn) + Counter((split, "videos") for split in split_of(drawn).values())
        total = Counter({"videos": 13}) + Counter(event.label for event in whole.events)
        wanted = {(split, what): share * count for split, share in shares.items() for what, count in total.items()}
        return sum(((got[place] - number) / max(number, 1)) ** 2 for place, number in wanted.items())

    best = [unevenness(seed) for seed in range(5)]
    monkeypatch.setattr(splitting, "NUM_DRAWINGS", 1)
    single = [unevenness(seed) for seed in range(40)]
    assert max(best) <= min(single) + 1e-9 < max(single)


def test_groups_stay_together_unless_videos_are_taken_one_by_one():
    drawn = split_of(draw_splits(dataset(group_size=4), {"train": 3, "val": 1}))
    for group in range(10):
        assert len({drawn[f"v{4 * group + index}"] for index in range(4)}) == 1
    alone = split_of(draw_splits(dataset(group_size=4), {"train": 3, "val": 1}, by_group=False))
    assert any(len({alone[f"v{4 * group + index}"] for index in range(4)}) == 2 for group in range(10))


def test_the_seed_decides():
    shares = {"train": 1, "val": 1}
    assert split_of(draw_splits(dataset(), shares, 3)) == split_of(draw_splits(dataset(), shares, 3))
    assert len({tuple(split_of(draw_splits(dataset(), shares, seed)).values()) for seed in range(5)}) > 1


def test_folds_validate_each_video_once():
    folds = draw_folds(dataset(group_size=2), 5)
    assert len(folds) == 5
    for video_id in dataset().videos:
        assert Counter(split_of(fold)[video_id] for fold in folds) == {"val": 1, "train": 4}
    assert all(Counter(split_of(fold).values())["val"] == 8 for fold in folds)


def test_kept_splits_are_not_drawn():
    splits = ["test"] * 10
    drawn = split_of(draw_splits(dataset(splits=splits), {"train": 2, "val": 1}, keep=["test"]))
    assert [drawn[f"v{index}"] for index in range(10)] == splits
    assert Counter(drawn.values()) == {"test": 10, "train": 20, "val": 10}
    assert "test" not in split_of(draw_splits(dataset(splits=splits), {"train": 2, "val": 1})).values()
    folds = draw_folds(dataset(splits=splits), 3, keep=["test"])
    assert all(Counter(split_of(fold).values())["test"] == 10 for fold in folds)


def test_every_split_gets_something():
    tiny = dataset(num_videos=3)
    assert set(split_of(draw_splits(tiny, {"train": 98, "val": 1, "test": 1})).values()) == {"train", "val", "test"}


def test_classes_of_videos_are_shared_out_too():
    videos = [Video(f"v{index}", label=LABELS[index % 2]) for index in range(20)]
    drawn = draw_splits(Dataset(LABELS, index_videos(videos)), {"train": 1, "val": 1})
    assert Counter((video.split, video.label) for video in drawn.videos.values()) == dict.fromkeys(
        [(split, label) for split in ("train", "val") for label in LABELS[:2]], 5
    )


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ConfigError, "share of 'val': expected a number above 0, got 0", {"shares": {"train": 1, "val": 0}}),
        (ConfigError, "share of 'all': the name is reserved", {"shares": {"train": 1, "all": 1}}),
        (ConfigError, "expected two splits or more, got 1; name another", {"shares": {"train": 1}}),
        (ConfigError, "--seed: expected 0 or more, got -1", {"shares": {"train": 1, "val": 1}, "seed": -1}),
        (ConfigError, "'val' is to be kept and to be drawn", {"shares": {"train": 1, "val": 1}, "keep": ["val"]}),
        (UnknownNameError, "no video has the split 'tset'.*Did you mean 'test'", {"shares": {"train": 1, "val": 1}, "keep": ["tset"]}),
    ],
)
def test_what_cannot_be_drawn_is_refused(error, message, arguments):
    with pytest.raises(error, match=message):
        draw_splits(dataset(splits=["test"]), **arguments)


def test_too_few_groups_and_torn_groups_are_refused():
    with pytest.raises(DatasetError, match="40 videos make 2 groups, expected at least 3"):
        draw_folds(dataset(group_size=20), 3)
    with pytest.raises(DatasetError, match="group 'g0' would be torn apart: video 'v0' stays in 'test', 'v1' is to be drawn"):
        draw_splits(dataset(group_size=4, splits=["test"]), {"train": 1, "val": 1}, keep=["test"])
    with pytest.raises(ConfigError, match="--folds: expected 2 or more, got 1"):
        draw_folds(dataset(), 1)


def test_folds_refuse_to_keep_a_split_that_does_not_exist():
    with pytest.raises(UnknownNameError, match="--keep: no video has the split 'tset'.*Did you mean 'test'"):
        draw_folds(dataset(splits=["test"]), 3, keep=["tset"])
