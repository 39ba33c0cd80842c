"""What a training sets around itself, and puts back: random numbers, determinism, threads, Lightning's remarks, Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from heads.training.config import TrainConfig


@contextmanager
def reproducible(config: TrainConfig) -> Iterator[None]:
    """Seeds torch, and makes it compute the same numbers every time on the CPU; it is left as it was."""
    were_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled, num_threads = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        try:
            if config.num_threads is not None:
                torch.set_num_threads(config.num_threads)
            if not torch.cuda.is_available():
                torch.use_deterministic_algorithms(True, warn_only=True)
                # Filling every new tensor with NaN finds bugs, and costs a pass over memory each time.
                torch.utils.deterministic.fill_uninitialized_memory = False
            yield
        finally:
            torch.use_deterministic_algorithms(were_deterministic, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = filled
            torch.set_num_threads(num_threads)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks on hardware and on loaders that it does not know."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Ctrl-C stays a `KeyboardInterrupt`: Lightning turns it into an exit and leaves the signal ignored. When SIGTERM ends the
    training, a line says so with the `advice`, and the exit code is not the 0 that Lightning gives it.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        print(f"SIGTERM: the training stops; {advice}", file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)
