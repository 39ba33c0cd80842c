import pytest

from heads.training import announce
from heads.training.announce import PROBED_BATCHES, WARM_AFTER_BATCHES, Announcer

MIB = 2**20


def announcer(asked, num_batches, num_bytes=MIB, uses=lambda: None):
    return Announcer(asked.append, lambda position: num_bytes, num_batches, uses)


def test_small_batches_are_asked_for_far_ahead_and_each_once():
    asked = []
    batches = announcer(asked, 1000)
    batches.ask_ahead(0)
    assert asked == list(range(32)), "32 MiB"
    batches.ask_ahead(1)
    batches.ask_ahead(2)
    assert asked == list(range(34))


def test_of_large_batches_the_next_is_asked_for():
    asked = []
    batches = announcer(asked, 4, num_bytes=2**30)
    for position in range(4):
        batches.ask_ahead(position)
        assert asked == list(range(min(position + 2, 4)))


def test_what_comes_from_memory_is_asked_for_now_and_then():
    asked, uses = [], [0]
    batches = announcer(asked, 300, num_bytes=2**30, uses=lambda: uses[0])
    for position in range(100):
        batches.ask_ahead(position)
    assert asked[:WARM_AFTER_BATCHES] == list(range(WARM_AFTER_BATCHES))
    assert all(position % PROBED_BATCHES == 0 for position in asked if position > WARM_AFTER_BATCHES)
    assert any(position > WARM_AFTER_BATCHES for position in asked)
    uses[0] += 1
    batches.ask_ahead(100)
    batches.ask_ahead(101)
    assert asked[-2:] == [101, 102], "the disk was used: everything is asked for again"


def test_what_has_to_come_from_the_disk_is_all_asked_for():
    asked = []
    batches = announcer(asked, 100, num_bytes=2**30, uses=lambda: len(asked))
    for position in range(100):
        batches.ask_ahead(position)
    assert asked == list(range(100))


def test_a_store_in_memory_is_not_asked_for_at_length_at_the_start():
    asked = []
    announcer(asked, 1000, uses=lambda: 0).ask_ahead(0)
    assert len(asked) < 32 / 2


def test_where_nobody_counts_the_uses_of_the_disk_everything_is_asked_for(monkeypatch):
    assert isinstance(announce.disk_uses(), int)
    monkeypatch.setattr(announce, "resource", None)
    asked = []
    batches = Announcer(asked.append, lambda position: 2**30, 60)
    for position in range(60):
        batches.ask_ahead(position)
    assert asked == list(range(60))


def test_while_one_thread_asks_another_may_read():
    asked = []
    batches = Announcer(lambda position: batches.ask_ahead(1) or asked.append(position), lambda position: MIB, 3, lambda: None)
    batches.ask_ahead(0)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("num_batches", [0, 1])
def test_few_batches(num_batches):
    asked = []
    announcer(asked, num_batches).ask_ahead(0)
    assert asked == list(range(num_batches))
