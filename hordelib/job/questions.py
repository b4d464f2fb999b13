"""What can be asked about a picture and is answered in words or a number, and the files for it.

Origins, sizes and hashes of the files; nothing here reads one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hordelib.errors import ModelMissing
from hordelib.job.control_weights import Weights

FOLDER = "alchemist"  # below the models folder
CLIP_FOLDER = "clip_blip"  # the same in every worker: horde_safety's CLIP lies there too

_BLIP = (
    "https://huggingface.co/Salesforce/blip-image-captioning-base/resolve/"
    "82a37760796d32b1411fe092ab5d4e227313294b/"
)
BLIP = Weights(
    "blip-image-captioning-base.bin",
    f"{_BLIP}pytorch_model.bin",
    "d6638651a5526cc2ede56f2b5104d6851b0755816d220e5e046870430180c767",
    989_820_849,
)
VOCABULARY = Weights(
    "blip-vocabulary.txt",
    f"{_BLIP}vocab.txt",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    231_508,
)
CLIP = Weights(
    "ViT-L-14.pt",
    "https://openaipublic.azureedge.net/clip/models/"
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    932_800_000,
)
HEAD = Weights(
    "sac+logos+ava1-l14-linearMSE.pth",
    "https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    3_714_759,
)


class Topic(StrEnum):
    """What is asked; the value is the horde's name of the form."""

    caption = "caption"
    interrogation = "interrogation"
    aesthetic = "aesthetic"


FILES: dict[Topic, tuple[Weights, ...]] = {
    Topic.caption: (BLIP, VOCABULARY),
    Topic.interrogation: (CLIP,),
    Topic.aesthetic: (CLIP, HEAD),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A topic, and the models folder that has its files."""

    topic: Topic
    models: Path

    @property
    def network(self) -> Path:
        """The weights of the network that looks at the picture."""
        return file_of(self.models, FILES[self.topic][0])

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it needs."""
        return tuple(file_of(self.models, weights) for weights in FILES[self.topic])

    @property
    def head(self) -> Path:
        """The weights that make a score of what CLIP sees."""
        return file_of(self.models, HEAD)


def file_of(models: Path, weights: Weights) -> Path:
    return models / (CLIP_FOLDER if weights is CLIP else FOLDER) / weights.file


def lacking(models: Path, topic: Topic) -> tuple[Weights, ...]:
    """The files of a topic that are not there."""
    return tuple(each for each in FILES[topic] if not file_of(models, each).is_file())


def ask(models: Path, topic: Topic) -> Question:
    """Raises ModelMissing, which names the file, where it can't be answered."""
    for weights in lacking(models, topic):
        raise ModelMissing(f"{topic}: there is no {file_of(models, weights)}")
    return Question(topic, models)
