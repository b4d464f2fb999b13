"""Which forms this alchemist offers: what is installed, known to the server, and allowed.

One word that the server does not know refuses a whole pop, so none is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from hordelib.alchemy.plain_forms import PACKAGES
from hordelib.job import control_types, post_processors
from hordelib.job.control_types import ControlType
from hordelib.job.image_files import MAX_PIXELS
from hordelib.job.post_processors import POST_PROCESSORS
from hordelib.job.questions import Topic, lacking
from worker.config.keys import BridgeConfig
from worker.horde.forms import FormOffer
from worker.horde.swagger import ServerWords
from worker.models.files.on_disk import size_text
from worker.models.introduction import NEWEST_AGENT

ANNOTATION = "annotation"
MOST_TILES = MAX_PIXELS // 512**2  # of a picture that is read at all
GROUPS = {"post-process": tuple(POST_PROCESSORS)}  # an old worker's word for all of them


class Place(Enum):
    """Where a form is done."""

    beside = "beside"  # in a process of its own, on the CPU
    judge = "judge"
    device = "device"  # by the engine, between pictures


PLACES: Mapping[str, Place] = {
    "nsfw": Place.judge,
    **dict.fromkeys(PACKAGES, Place.beside),
    ANNOTATION: Place.device,
    **dict.fromkeys(Topic, Place.device),
    **dict.fromkeys(POST_PROCESSORS, Place.device),
}


@dataclass(frozen=True, slots=True)
class OfferedForms:
    """`missing` says of each wanted form that can't be done what it lacks."""

    forms: tuple[str, ...]
    annotation_types: tuple[ControlType, ...]
    missing: Mapping[str, str]

    def known_to(self, words: ServerWords, *, with_device: bool) -> OfferedForms:
        """Those that the server has words for; without a device, none of its forms."""
        forms = tuple(
            form
            for form in self.forms
            if form in words.forms and (with_device or PLACES[form] is not Place.device)
        )
        types = self.annotation_types if ANNOTATION in forms else ()
        return OfferedForms(forms, types, self.missing)

    def without(self, form: str, control_type: str) -> OfferedForms:
        """Not that form; of annotation, not that type."""
        if form != ANNOTATION:
            return replace(self, forms=tuple(each for each in self.forms if each != form))
        types = tuple(each for each in self.annotation_types if each != control_type)
        left = replace(self, annotation_types=types)
        return left if types else replace(left, forms=tuple(f for f in left.forms if f != form))


def offered_forms(config: BridgeConfig, models: Path) -> OfferedForms:
    """What this machine can do of what the owner wants; `models` is the folder of all weights."""
    wanted = wanted_forms(config)
    types = tuple(_drawable(config, models)) if ANNOTATION in wanted else ()
    lacking = {form: _lack(form, models, types) for form in wanted}
    return OfferedForms(
        tuple(form for form in wanted if not lacking[form]),
        types,
        {form: lack for form, lack in lacking.items() if lack},
    )


def form_offer(config: BridgeConfig, offered: OfferedForms, amount: int) -> FormOffer:
    """As the owner wants it at the moment."""
    config = config.now
    assert config.alchemist_name is not None
    return FormOffer(
        name=config.alchemist_name,
        forms=offered.forms,
        annotation_types=tuple(offered.annotation_types),
        bridge_agent=config.bridge_agent or NEWEST_AGENT,
        max_tiles=min(config.max_tiles, MOST_TILES),
        amount=amount,
        priority_usernames=config.priority_usernames,
    )


def wanted_forms(config: BridgeConfig) -> tuple[str, ...]:
    """What the owner wants, each by the horde's own name and once; it may lack files."""
    words = config.forms or tuple(PLACES)
    forms = (form for word in words for form in GROUPS.get(word, (word,)))
    return tuple(dict.fromkeys(form for form in forms if form in PLACES))


def _drawable(config: BridgeConfig, models: Path) -> Iterable[ControlType]:
    for control in map(ControlType, config.annotation_types or ControlType):
        files = control_types.files_of(models, control, net=False)
        if all(file.is_there for file in files):
            yield control


def _lack(form: str, models: Path, types: tuple[ControlType, ...]) -> str:
    if form in PACKAGES:
        lacking = [name for name in PACKAGES[form] if find_spec(name) is None]
        return f"the packages {', '.join(lacking)} are not installed" if lacking else ""
    if form == ANNOTATION:
        return "" if types else "no annotator's files are there"
    if form in POST_PROCESSORS:
        file = post_processors.missing(models).get(form)
        return f"{file} is missing in the models folder" if file else ""
    if form in list(Topic):
        return lacking_for(Topic(form), models)
    return ""


def lacking_for(topic: Topic, models: Path) -> str:
    """Which files are missing to answer such questions, and how large they are; "" for none."""
    lack = lacking(models, topic)
    told = ", ".join(f"{each.file} ({size_text(each.size_bytes)})" for each in lack)
    return f"missing in the models folder: {told}" if lack else ""
