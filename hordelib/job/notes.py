"""Notes that go to the client with an image: the horde API's `gen_metadata`.

Whatever a picture lacks of what was asked for is disclosed in one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_LONGEST_REF = 255


class MetadataType(StrEnum):
    """What a note about an image is about (gen_metadata.type)."""

    LORA = "lora"
    TI = "ti"
    CENSORSHIP = "censorship"
    SOURCE_IMAGE = "source_image"
    SOURCE_MASK = "source_mask"
    EXTRA_SOURCE_IMAGES = "extra_source_images"
    BATCH_INDEX = "batch_index"
    INFORMATION = "information"
    AESTHETIC_SCORE = "aesthetic_score"


class MetadataValue(StrEnum):
    """What is said about it (gen_metadata.value)."""

    DOWNLOAD_FAILED = "download_failed"
    PARSE_FAILED = "parse_failed"
    BASELINE_MISMATCH = "baseline_mismatch"
    CSAM = "csam"
    NSFW = "nsfw"
    SEE_REF = "see_ref"


@dataclass(frozen=True, slots=True)
class GenMetadata:
    """One note about one image. A `ref` is cut at 255 characters, the most the horde takes."""

    type: MetadataType
    value: MetadataValue
    ref: str | None = None

    @classmethod
    def batch_index(cls, index: int) -> Self:
        """Which image of its batch this is, counted from 0."""
        return cls(MetadataType.BATCH_INDEX, MetadataValue.SEE_REF, str(index))

    @classmethod
    def aesthetic_score(cls, score: float) -> Self:
        """How beautiful the picture is by LAION's predictor: about 1 to 10."""
        return cls(MetadataType.AESTHETIC_SCORE, MetadataValue.SEE_REF, f"{score:.2f}")

    def body(self) -> dict[str, str]:
        note = {"type": self.type.value, "value": self.value.value}
        return note if self.ref is None else {**note, "ref": self.ref[:_LONGEST_REF]}
