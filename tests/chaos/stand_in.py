"""Children in the place of engine and judge: they work within milliseconds, and fail on purpose."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from PIL import Image

from benchmarks.measure.simulated_children import SimulatedEngine, serve_verdicts
from hordelib.alchemy.device_forms import NO_MODEL
from hordelib.engine import Generation, OnStep, unwatched
from hordelib.errors import EngineError, GenerationFailed
from hordelib.files.headers import verify_checkpoint
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.images import Picture
from hordelib.job.params import GenerationParams, images_of
from hordelib.safety.verdict import Verdict
from worker.children.child_side import Child, set_up_process
from worker.children.engine_main import EngineChild
from worker.children.messages import Asked, EngineSettings, Judged, JudgeSettings, Unjudged

IMPOSSIBLE = "impossible"  # a prompt with this word fails in every engine
NAKED = "naked"  # a picture of a prompt with this word is not safe for work
LIVES, GOOD = "lives", "good"


# ---- pictures --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that determines one picture."""

    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    source: str  # the digest of the picture to start from
    denoise: float

    @classmethod
    def of_job(cls, params: GenerationParams, model: str, index: int) -> Self:
        """As the engine is told."""
        return cls(
            model=model,
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            width=params.width,
            height=params.height,
            seed=params.image_seed(index),
            steps=params.steps,
            cfg=params.cfg,
            sampler=params.sampler.name,
            scheduler=params.scheduler.value,
            source=" ".join(image.digest for image in images_of(params).values()),
            denoise=params.denoise,
        )


def draw(wanted: Wanted) -> Picture:
    """Sixteen fields whose colours are a digest of everything that was wanted."""
    colours = hashlib.sha384(repr(astuple(wanted)).encode()).digest()
    image = Image.frombytes("RGB", (4, 4), colours)
    size = (wanted.width, wanted.height)
    return Picture(*size, image.resize(size, Image.Resampling.NEAREST).tobytes(), wanted.seed)


# ---- tempers ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Temper:
    """How children fail: by draws from `seed`, the number of their life, and that of the call.

    `folder` holds a folder for each life, with its process id, and what makes all of them good.
    """

    seed: int
    folder: Path

    def mood(self, name: str, life: int, call: int, moods: Mapping[str, float]) -> str:
        """One of `moods`, each with its probability, or "" most of the time."""
        if (self.folder / GOOD).exists():
            return ""
        drawn = random.Random(f"{self.seed} {name} {life} {call}").random()
        for mood, probability in moods.items():
            drawn -= probability
            if drawn < 0:
                return mood
        return ""

    def refuses_to_start(self, name: str, life: int) -> bool:
        """Never twice in a row: a worker is right to stop when no engine ever starts."""
        before, now = (self.mood(name, one, 0, {"refuses": 0.1}) for one in (life - 1, life))
        return bool(now) and not before

    def begin_life(self, name: str) -> int:
        for life in itertools.count(1):
            folder = self.folder / f"{name}-{life}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            (folder / str(os.getpid())).touch()
            return life
        raise AssertionError("unreachable")


def has_begun(folder: Path, pid: int) -> bool:
    """Whether this process is a child that has loaded its libraries."""
    return any(folder.glob(f"*/{pid}"))


def be_good(folder: Path) -> None:
    """Let no child fail any more but over jobs that are impossible."""
    folder.mkdir(exist_ok=True)
    (folder / GOOD).touch()


def _exit() -> None:
    os._exit(3)


def _be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    time.sleep(3600)


def _break() -> None:
    raise RuntimeError("on purpose")


ENDS: Mapping[str, Callable[[], None]] = {
    "exits": _exit,
    "is killed": _be_killed,
    "crashes": _crash,
    "hangs": _hang,
    "breaks": _break,
}
ENGINE_MOODS = {
    "exits": 0.007,
    "is killed": 0.007,
    "crashes": 0.007,
    "hangs": 0.004,
    "breaks": 0.007,
    "talks garbage": 0.007,
    "says half a word": 0.007,
    "fails": 0.02,
}
JUDGE_MOODS = {
    "exits": 0.004,
    "is killed": 0.004,
    "crashes": 0.003,
    "talks garbage": 0.004,
    "says half a word": 0.003,
    "names another picture": 0.004,
    "can't say": 0.01,
}
GARBAGE = b"this is no pickle"
HALF_A_WORD = b"\0\0\1\0half"  # a message of 256 bytes that ends after 4


def _misbehave(mood: str, pipe: Connection) -> None:
    """Returns where the mood is not one that ends a child or speaks past its protocol."""
    if mood in ENDS:
        ENDS[mood]()
    elif mood == "talks garbage":
        pipe.send_bytes(GARBAGE)
    elif mood == "says half a word":
        os.write(pipe.fileno(), HALF_A_WORD)
        _be_killed()


# ---- the children ----------------------------------------------------------------------------


class StandInEngine(SimulatedEngine):
    """Draws at once, and as it was told to fail."""

    def __init__(self, temper: Temper, pipe: Connection):
        super().__init__(lambda params, model, i: draw(Wanted.of_job(params, model.name, i)))
        self._temper = temper
        self._pipe = pipe
        self._life = temper.begin_life("engine")
        self._calls = 0

    def start(self) -> str:
        if self._temper.refuses_to_start("engine", self._life):
            raise EngineError("no engine today")
        return super().start()

    def generate_together(
        self, members: Sequence[Member], model: Model, on_step: OnStep = unwatched, **options: Any
    ) -> tuple[Generation, ...]:
        for path in model.files.values() if model != NO_MODEL else ():
            verify_checkpoint(path)
        self._calls += 1
        mood = self._temper.mood("engine", self._life, self._calls, ENGINE_MOODS)

        def misbehave(done: int, total: int) -> None:
            on_step(done, total)
            _misbehave(mood if done == 1 else "", self._pipe)

        made = super().generate_together(members, model, misbehave, **options)
        is_impossible = any(IMPOSSIBLE in member.params.prompt for member in members)
        if mood == "fails" or is_impossible:
            raise GenerationFailed("on purpose")
        return made


def _set_up(log_file: Path) -> None:
    set_up_process(log_file)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # crashes are on purpose


def engine(temper: Temper, pipe: Connection, settings: EngineSettings) -> None:
    """The main of the engine's child."""
    _set_up(settings.log_file)
    EngineChild(Child(pipe), StandInEngine(temper, pipe)).serve()


def judge(temper: Temper, pipe: Connection, settings: JudgeSettings) -> None:
    """The main of the judge's child."""
    _set_up(settings.log_file)
    life = temper.begin_life("judge")
    calls = itertools.count(1)

    def answer(asked: Asked) -> Judged | Unjudged:
        mood = temper.mood("judge", life, next(calls), JUDGE_MOODS)
        _misbehave(mood, pipe)
        return _answer(asked, mood)

    serve_verdicts(pipe, answer)


def _answer(asked: Asked, mood: str) -> Judged | Unjudged:
    if mood == "can't say":
        return Unjudged(asked.job_id, asked.index, "on purpose")
    index = asked.index + (mood == "names another picture")
    return Judged(asked.job_id, index, Verdict(nsfw=NAKED in asked.prompt))
