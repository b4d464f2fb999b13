"""What a horde's own description of itself (swagger.json) says that it knows.

Servers grow, and a worker may be newer than the one that it serves: a word that the server does not
know costs the whole request that it is in. What could not be read counts as not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from worker.net.untrusted import LONGEST_NAME

_MOST_WORDS = 1000  # of an enumeration
_MOST_KEYS = 1000  # of a body

Word = Annotated[str, Field(max_length=LONGEST_NAME)]


@dataclass(frozen=True, slots=True)
class ServerWords:
    """Words that may be used towards a server. The defaults are for one that told nothing.

    Every server known to serve images takes the notes of `MetadataType` (since 5.1.5); forms of
    alchemy and extended control types are named only to one that lists them.
    """

    forms: frozenset[str] = frozenset()
    note_types: frozenset[str] = frozenset(MetadataType)
    note_values: frozenset[str] = frozenset(MetadataValue)
    extended_control: bool = False

    def takes(self, note: GenMetadata) -> bool:
        """Whether the server takes a picture with this note. What censors one is never left out."""
        is_known = note.type in self.note_types and note.value in self.note_values
        return is_known or note.type is MetadataType.CENSORSHIP


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Enumeration(_Part):
    enum: tuple[Word, ...] = Field(max_length=_MOST_WORDS)


class _FormFields(_Part):
    name: _Enumeration


class _Form(_Part):
    properties: _FormFields


class _NoteFields(_Part):
    type: _Enumeration
    value: _Enumeration


class _Note(_Part):
    properties: _NoteFields


class _Fields(_Part):
    properties: dict[Word, object] = Field(default={}, max_length=_MOST_KEYS)


class _PopBody(_Fields):
    """What a body inherits stands in `allOf`, with the fields that it adds."""

    allOf: tuple[_Fields, ...] = Field(default=(), max_length=_MOST_KEYS)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.properties for part in (self, *self.allOf)))


class _Definitions(_Part):
    ModelInterrogationFormStable: _Form | None = None
    GenerationMetadataStable: _Note
    PopInputStable: _PopBody


class Swagger(_Part):
    """The three definitions that are looked at; what else there is, is not."""

    definitions: _Definitions

    @property
    def words(self) -> ServerWords:
        named = self.definitions
        form = named.ModelInterrogationFormStable
        note = named.GenerationMetadataStable.properties
        return ServerWords(
            forms=frozenset(form.properties.name.enum) if form else frozenset(),
            note_types=frozenset(note.type.enum),
            note_values=frozenset(note.value.enum),
            extended_control="allow_extended_controlnet" in named.PopInputStable.keys,
        )
