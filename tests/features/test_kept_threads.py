"""Threads are used again, and survive what their work does."""

import threading

from features.kept_threads import run_in_kept_thread


def test_a_thread_that_is_done_gets_the_next_work():
    found = []
    for _ in range(20):
        assert run_in_kept_thread(lambda: found.append(threading.get_ident())).join(10)
    assert len(found) == 20 and len(set(found)) == 1


def test_work_at_the_same_time_has_threads_of_its_own():
    together = threading.Barrier(4)
    tasks = [run_in_kept_thread(lambda: together.wait(10)) for _ in range(4)]
    assert all(task.join(10) for task in tasks)


def test_work_that_fails_says_so_and_its_thread_goes_on(capsys):
    def fail():
        raise ValueError("told")

    assert run_in_kept_thread(fail).join(10) and "ValueError: told" in capsys.readouterr().err
    assert run_in_kept_thread(lambda: None).join(10)


def test_who_does_not_end_is_waited_for_no_longer_than_asked():
    go_on = threading.Event()
    task = run_in_kept_thread(go_on.wait)
    assert not task.join(0.01)
    go_on.set()
    assert task.join(10)
