"""Who is told what to do next, and when nobody is told anything any more."""

import threading
import time

from features.agenda import Agenda, Attempt
from features.resume import Action, Decision
from vjepa_loc.dataset import Video


def decisions(*names: str) -> list[Decision]:
    return [Decision(Video(id=name), Action.EXTRACT) for name in names]


def in_thread(work) -> tuple[threading.Thread, list]:
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_everything_is_handed_out_once_in_order():
    agenda = Agenda(decisions("a", "b"))
    assert [agenda.next().decision.video.id for _ in range(2)] == ["a", "b"]
    agenda.settle()
    agenda.settle()
    assert agenda.next() is None and agenda.is_settled


def test_nobody_leaves_while_a_video_in_hand_may_come_back():
    agenda = Agenda(decisions("a"))
    first = agenda.next()
    thread, found = in_thread(agenda.next)
    time.sleep(0.05)
    assert not found and not agenda.is_settled
    agenda.repeat(Attempt(time.monotonic() + 0.05, first.number + 1, first.decision))
    thread.join(5)
    assert found[0].number == 2 and found[0].decision is first.decision
    agenda.settle()
    assert agenda.next() is None


def test_an_attempt_is_not_repeated_before_its_time_and_others_come_first():
    agenda = Agenda(decisions("a", "b"))
    first = agenda.next()
    due_s = time.monotonic() + 0.2
    agenda.repeat(Attempt(due_s, 2, first.decision))
    assert agenda.next().decision.video.id == "b"
    agenda.settle()
    assert agenda.next().number == 2 and time.monotonic() >= due_s


def test_the_last_look_comes_when_everything_else_is_settled():
    agenda = Agenda(decisions("held", "b"))
    held = agenda.next()
    agenda.repeat(Attempt(held.due_s, 1, held.decision, is_last_look=True))
    assert agenda.next().decision.video.id == "b"
    thread, found = in_thread(agenda.next)
    time.sleep(0.05)
    assert not found, "b is still in hand"
    agenda.settle()
    thread.join(5)
    assert found[0].is_last_look and found[0].decision.video.id == "held"
    agenda.settle()
    assert agenda.next() is None


def test_after_a_stop_nothing_is_begun_and_who_waits_is_woken():
    agenda = Agenda(decisions("a", "b", "c"))
    agenda.next()
    asked = []
    blocked = Agenda(iter(lambda: asked.append(1) or decisions("x")[0], None))
    agenda.next(), agenda.next()
    thread, found = in_thread(agenda.next)
    agenda.stop()
    thread.join(5)
    assert found == [None] and agenda.next() is None
    blocked.stop()
    assert blocked.next() is None and not asked, "the iterator is not asked any more"
    assert not agenda.wait_until_settled(0.01)


def test_a_stop_gives_up_what_was_to_be_repeated():
    agenda = Agenda(decisions("a", "b"))
    first, second = agenda.next(), agenda.next()
    assert agenda.repeat(Attempt(time.monotonic() + 60, 2, first.decision))
    assert [attempt.decision.video.id for attempt in agenda.stop()] == ["a"]
    assert not agenda.repeat(Attempt(time.monotonic(), 2, second.decision)) and not agenda.is_settled
    agenda.settle()
    assert agenda.is_settled and agenda.next() is None
