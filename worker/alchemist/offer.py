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
    """`missing` says of each wanted form what it lacks, and so of annotation where it lacks files
    for some of its types alone."""

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
    lacking = {form: lack for form in wanted if (lack := _lack(form, config, models))}
    offered = (form for form in wanted if form not in lacking or (form == ANNOTATION and types))
    return OfferedForms(tuple(offered), types, lacking)


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


def _undrawable(config: BridgeConfig, models: Path) -> str:
    """What the types lack that the owner names, else the first nine."""
    wanted = tuple(map(ControlType, config.annotation_types)) or control_types.CLASSIC
    files = {control: control_types.files_of(models, control, net=False) for control in wanted}
    lacking = [file for each in files.values() for file in each if not file.is_there]
    named = [control for control, each in files.items() if not all(file.is_there for file in each)]
    size = size_text(sum(file.weights.size_bytes for file in dict.fromkeys(lacking)))
    return f"the annotators of {', '.join(named)} ({size})" if named else ""


def _lack(form: str, config: BridgeConfig, models: Path) -> str:
    if form in PACKAGES:
        lacking = [name for name in PACKAGES[form] if find_spec(name) is None]
        return f"the packages {', '.join(lacking)}" if lacking else ""
    if form == ANNOTATION:
        return _undrawable(config, models)
    if form in POST_PROCESSORS:
        return post_processors.missing(models).get(form, "")
    if form in list(Topic):
        return lacking_for(Topic(form), models)
    return ""


def lacking_for(topic: Topic, models: Path) -> str:
    """Which files are missing to answer such questions, and how large they are; "" for none."""
    lack = lacking(models, topic)
    return ", ".join(f"{each.file} ({size_text(each.size_bytes)})" for each in lack)
