import random

import pytest

from features.dispatch import MOST_LOSSES, Answer, Dispatcher
from features.outcome import IN_OTHER_HANDS, Outcome
from vjepa_loc.dataset import Video


def dispatcher_of(*ids: str) -> Dispatcher:
    return Dispatcher([Video(id=video_id) for video_id in ids])


def done(video_id: str) -> Outcome:
    return Outcome(video_id, "done")


def busy(video_id: str) -> Outcome:
    return Outcome(video_id, "skipped", IN_OTHER_HANDS)


def test_videos_are_handed_out_in_their_order_to_whoever_asks():
    dispatcher = dispatcher_of("a", "b", "c")
    assert [dispatcher.next_for(worker).id for worker in (1, 2, 1)] == ["a", "b", "c"]
    assert dispatcher.held_by(1) == ["a", "c"] and dispatcher.num_left == 3


def test_who_is_done_waits_for_the_others_whose_videos_may_come_back():
    dispatcher = dispatcher_of("a", "b")
    dispatcher.next_for(1), dispatcher.next_for(2)
    assert dispatcher.finish(1, done("a")) == done("a")
    assert dispatcher.next_for(1) is Answer.WAIT
    assert dispatcher.lost(2, "signal 9") == []
    assert dispatcher.next_for(1).id == "b"
    dispatcher.finish(1, done("b"))
    assert dispatcher.next_for(1) is Answer.END and dispatcher.num_left == 0


def test_after_a_loss_a_video_is_done_alone():
    dispatcher = dispatcher_of("a", "b", "c", "d")
    dispatcher.next_for(1), dispatcher.next_for(1)
    dispatcher.lost(1, "signal 11")
    assert [dispatcher.next_for(2).id for _ in range(2)] == ["c", "d"], "what has killed nobody comes first"
    assert dispatcher.next_for(2) is Answer.WAIT
    dispatcher.finish(2, done("c")), dispatcher.finish(2, done("d"))
    assert dispatcher.next_for(2).id == "a"
    assert dispatcher.next_for(2) is Answer.WAIT, "a is alone"
    dispatcher.finish(2, done("a"))
    assert dispatcher.next_for(2).id == "b"


def test_a_video_that_kills_workers_is_set_aside_and_no_other():
    dispatcher, answers, deaths, workers = dispatcher_of("bad", *"abcde"), {}, 0, 0
    while dispatcher.num_left:
        workers += 1
        while True:
            held = [video for _ in range(3) if isinstance(video := dispatcher.next_for(workers), Video)]
            if not held:
                break
            if any(video.id == "bad" for video in held):
                deaths += 1
                answers |= {outcome.video_id: outcome for outcome in dispatcher.lost(workers, "signal 11")}
                break
            answers |= {video.id: dispatcher.finish(workers, done(video.id)) for video in held}
    assert deaths == MOST_LOSSES
    assert {video_id for video_id, outcome in answers.items() if outcome.status == "done"} == set("abcde")
    assert answers["bad"].status == "failed"
    assert answers["bad"].reason == "set aside: 3 workers ended while they had it, the last one: signal 11"


def test_several_videos_that_kill_workers_are_settled_one_after_the_other():
    """Else a worker that has had all of them is given up before the first of them is set aside."""
    dispatcher, deaths_between, deaths = dispatcher_of("bad", "worse", "worst"), [], 0
    while dispatcher.num_left:
        while isinstance(dispatcher.next_for(deaths), Video):
            pass
        aside = dispatcher.lost(deaths, "signal 11")
        deaths += 1
        deaths_between += [deaths] if aside else []
    assert deaths_between == [3, 5, 7]


def test_what_others_hold_is_looked_at_once_more_at_the_end():
    dispatcher = dispatcher_of("a", "b", "c")
    assert dispatcher.next_for(1).id == "a" and dispatcher.finish(1, busy("a")) is None
    assert dispatcher.next_for(1).id == "b" and dispatcher.finish(1, busy("b")) is None
    assert dispatcher.next_for(1).id == "c"
    assert dispatcher.next_for(2) is Answer.WAIT
    dispatcher.finish(1, done("c"))
    assert dispatcher.next_for(1).id == "a" and dispatcher.next_for(2).id == "b"
    assert dispatcher.finish(1, done("a")) == done("a")
    assert dispatcher.finish(2, busy("b")) == busy("b"), "the second answer stands"
    assert dispatcher.next_for(1) is dispatcher.next_for(2) is Answer.END


def test_an_answer_of_who_was_given_up_does_not_count():
    dispatcher = dispatcher_of("a")
    dispatcher.next_for(1)
    dispatcher.lost(1, "unreachable")
    assert dispatcher.finish(1, done("a")) is None
    assert dispatcher.next_for(2).id == "a"
    assert dispatcher.finish(1, done("a")) is None and dispatcher.finish(2, done("a")) == done("a")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_video_is_answered_once(seed):
    chance = random.Random(seed)
    dispatcher, answered, names = dispatcher_of(*map(str, range(25))), [], iter(range(10_000))
    workers = [next(names) for _ in range(4)]
    for _ in range(100_000):
        if not dispatcher.num_left:
            break
        place = chance.randrange(4)
        worker, held = workers[place], dispatcher.held_by(workers[place])
        if len(held) < 3 and chance.random() < 0.5:
            dispatcher.next_for(worker)
        elif held and chance.random() < 0.05:
            answered += [outcome.video_id for outcome in dispatcher.lost(worker, "killed")]
            workers[place] = next(names)
        elif held:
            outcome = chance.choice([done, busy])(chance.choice(held))
            answered += [outcome.video_id] if dispatcher.finish(worker, outcome) else []
    assert sorted(answered, key=int) == list(map(str, range(25)))
    assert all(dispatcher.next_for(worker) is Answer.END for worker in workers)
