"""What all peers are given to do, the same jobs to each of them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.protocol import Job

CHECKPOINTS = ("first.safetensors", "second.safetensors")
LORA = "lora.safetensors"
SUBJECT = "a red circle on a blue background, "
CHUNK_WORDS = 8  # repeats of the subject in one chunk of 75 tokens
MOST_TOGETHER = 8
COLOURS = ("red", "green", "blue", "yellow", "white", "orange", "purple", "pink")


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of turn: its jobs wait at once, one for each of the checkpoints and `together`.

    Every job has a prompt and a seed that no other one has; the negative prompt is always the same
    unless it is `new_negative`.
    """

    name: str
    side: int = 64  # pixels
    steps: int = 10
    images: int = 1  # of each job
    together: int = 1
    checkpoints: int = 1
    lora: str = ""
    chunks: int = 1  # of the prompt
    new_negative: bool = False

    def turn(self, number: int) -> tuple[Job, ...]:
        """The jobs of turn `number`."""
        return tuple(
            self._job(number * MOST_TOGETHER + i, checkpoint)
            for i in range(self.together)
            for checkpoint in CHECKPOINTS[: self.checkpoints]
        )

    def _job(self, number: int, checkpoint: str) -> Job:
        colour = COLOURS[number % len(COLOURS)]
        return Job(
            checkpoint=checkpoint,
            prompt=f"number {number}, {colour}, " + SUBJECT * self._repeats,
            negative_prompt=f"plain, not {number}" if self.new_negative else "plain",
            seed=number,
            width=self.side,
            height=self.side,
            steps=self.steps,
            images=self.images,
            lora=self.lora,
        )

    @property
    def _repeats(self) -> int:
        return 1 if self.chunks == 1 else self.chunks * CHUNK_WORDS - CHUNK_WORDS // 2


PLAIN = (
    Work("128 x 128, alone", side=128),
    Work("64 x 64, alone"),
    Work("64 x 64, four different jobs", together=4),
)
MORE = (
    Work("64 x 64, a new negative prompt in each job", new_negative=True),
    Work("64 x 64, eight different jobs", together=MOST_TOGETHER),
    Work("64 x 64, four pictures of a prompt", images=4),
    Work("64 x 64, a prompt of three chunks", chunks=3),
)
IN_TURN = (  # last, since peers may keep the second checkpoint in memory
    Work("64 x 64, two checkpoints in turn", checkpoints=2),
    Work("64 x 64, two checkpoints in turn, a LoRA", checkpoints=2, lora=LORA),
)
QUICK = (*PLAIN, *IN_TURN)
WORKS = (*PLAIN, *MORE, *IN_TURN)
