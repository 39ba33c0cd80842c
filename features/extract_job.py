"""An extraction as it is sent to other processes: which videos, and the settings to do them with.

A process that was given a job opens encoder and store itself and pulls videos one by one; frames and tokens never travel.
"""

import os
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from features.agenda import NOT_YET, NotYet
from features.claims import Owner
from features.extract_settings import ExtractSettings
from features.outcome import Progress, StageTimes
from features.places.file_cache import FOLDER_VARIABLE, LIMIT_VARIABLE
from features.recipe import ExtractConfig
from features.schema import Encoding
from vjepa_loc.dataset import Video
from vjepa_loc.errors import VjepaLocError

if TYPE_CHECKING:
    from features.encode_stage import Encoder
    from features.resume import Decision
    from features.store import Store

# Often enough that a retry or the wish to stop does not wait for another worker's video.
_ANSWER_S = 0.2


@dataclass(frozen=True)
class ExtractJob:
    """`folder` is where relative paths of the settings begin, `environment` what places of copies the settings chose."""

    videos: tuple[Video, ...]
    settings: ExtractSettings
    folder: Path
    environment: dict[str, str]

    @classmethod
    def of(cls, videos: Iterable[Video], settings: ExtractSettings) -> "ExtractJob":
        """A job of this process, whose store has the same name wherever it is done."""
        if "://" not in settings.store:
            settings = replace(settings, store=str(Path(settings.store).absolute()))
        environment = {name: os.environ[name] for name in (FOLDER_VARIABLE, LIMIT_VARIABLE) if name in os.environ}
        return cls(tuple(videos), settings, Path.cwd(), environment)

    def load_encoder(self) -> "Encoder":
        """The encoder where the recipe wants it; once per process and job. Raises as `features.extract.load_encoder`."""
        return self._encoder

    @cached_property
    def _encoder(self) -> "Encoder":
        from features.extract import load_encoder

        settings = self.settings
        return load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())

    @cached_property
    def encoding(self) -> Encoding:
        """The encoding of the job; where the encoder is not needed in this process it is loaded beside the GPU, and forgotten."""
        from features.extract import load_encoder

        settings = self.settings
        encoder = vars(self).get("_encoder") or load_encoder(settings.encoder_name, settings.encoder_config, "cpu")
        return settings.recipe.encoding(encoder.spec)

    def with_recipe(self, **values: Any) -> "ExtractJob":
        """The job with other values in its recipe."""
        recipe = self.settings.recipe.model_copy(update=values)
        return replace(self, settings=replace(self.settings, recipe=recipe))

    def for_worker(self, **recipe: Any) -> "ExtractJob":
        """As `with_recipe`, without its videos, which a worker is told one by one."""
        return replace(self.with_recipe(**recipe), videos=())


@dataclass(frozen=True)
class Ready:
    """A worker has opened encoder and store; `owner` is what its claims say."""

    owner: Owner


@dataclass(frozen=True)
class Want:
    """A worker has room for another video."""


@dataclass(frozen=True)
class Broken:
    """A worker cannot go on, and no other could: the error is that of the command."""

    error: VjepaLocError


@dataclass(frozen=True)
class Failed:
    """A worker cannot go on for a reason that may be its own (its GPU, its memory, its machine), in one line."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """A worker was told that there are no more videos, or to stop, and has ended its work."""

    times: StageTimes = field(default_factory=StageTimes)


Message = Ready | Want | Broken | Failed | Finished | Progress


class Link(Protocol):
    """What connects a worker with its engine. `stop` says that the work is to end."""

    stop: threading.Event

    def send(self, message: Message) -> None:
        """May be called by any thread."""

    def receive(self, wait_s: float) -> Video | None | NotYet:
        """The answer to a `Want`, None where there are no more videos; `NOT_YET` where none came in this time."""


def work(job: ExtractJob, link: Link) -> None:
    """Does what `link` hands out until there is no more; everything is said through it, also what goes wrong.

    Raises `EOFError` or `ConnectionError` where nobody listens any more.
    """
    from features.disk_space import DiskSpace
    from features.extract import run_decisions
    from features.store import create_or_open_store
    from features.worker_status import WorkerStatus

    settings, recipe = job.settings, job.settings.recipe
    os.environ.update(job.environment)
    try:
        encoder = job.load_encoder()
        store = create_or_open_store(settings.store, recipe.encoding(encoder.spec), settings.storage)
        space = DiskSpace(store, recipe.min_free_gib)
        link.send(Ready(Owner.this_process()))
        with WorkerStatus(store, {}, device=str(encoder.device)) as status:

            def on_progress(event: Progress) -> None:
                for listener in (link.send, space, status):
                    listener(event)

            decisions = _decisions(link, store, recipe)
            # What another process holds is looked at again by the engine, which knows when all others are done.
            report = run_decisions(decisions, store, encoder, recipe, on_progress, link.stop, space.check, look_again=False)
        link.send(Finished(report.times))
    except VjepaLocError as error:
        link.send(Broken(error))
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        traceback.print_exc()
        link.send(Failed(f"{type(error).__name__}: {' '.join(str(error).split())}"))


def _decisions(link: Link, store: "Store", recipe: ExtractConfig) -> Iterator["Decision | NotYet"]:
    from features.resume import decide

    has_asked = False
    while not link.stop.is_set():
        if not has_asked:
            link.send(Want())
        answer = link.receive(_ANSWER_S)
        has_asked = answer is NOT_YET
        if answer is None:
            return
        yield NOT_YET if answer is NOT_YET else decide(answer, store, recipe.compare, recipe.on_mismatch)
