"""The models of the reference that names and groups on the command line stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hordelib.job.control_types import CLASSIC, EXTENDED, ControlType
from hordelib.job.questions import Topic
from worker.alchemist.offer import ANNOTATION, wanted_forms
from worker.config.keys import BridgeConfig
from worker.config.values import is_word
from worker.errors import DocumentMissing, UnknownModel
from worker.models.files.control_files import CLASSIC_NAMES, annotator_entries, file_names
from worker.models.files.unlisted_weights import question_entries
from worker.models.inventory import ModelsFolder
from worker.models.reference import Kind, ReferenceEntry
from worker.models.selection import Candidates, choose, nearest
from worker.models.sites import Reference, read_uses

_QR_CODES = ("control_qr", "control_qr_sdxl")


def meant_entries(
    folder: ModelsFolder, reference: Reference, names: Sequence[str]
) -> list[ReferenceEntry]:
    """The rows that names and groups stand for. Raises UnknownModel with a line for each other."""
    entries: dict[str, ReferenceEntry] = {}
    problems: list[str] = []
    for name in names:
        if name.lower() == ALCHEMIST:
            entries |= {row.name: row for row in _alchemist(folder.config, reference)}
        elif name.lower() in _GROUPS:
            entries |= {row.name: row for row in _GROUPS[name.lower()](reference)}
        elif name in reference.entries:
            entries[name] = reference.entries[name]
        elif is_word(name):
            choice = choose([name], folder.config.models_to_skip, _market(folder, reference))
            problems += (line.removeprefix("models_to_load: ") for line in choice.problems)
            entries |= {each: reference.entries[each] for each in choice.names}
        else:
            hint = nearest(name, (*reference.entries, *_GROUPS, ALCHEMIST))
            lack = "" if reference.models else f": {NO_LIST}"
            problems.append(f"{name!r} is not in the model reference{lack or hint}")
    if problems:
        raise UnknownModel("\n".join(problems))
    return list(entries.values())


def insist_on_lists(reference: Reference) -> Reference:
    """Raises DocumentMissing where the list of models can't be had; a horde may have none."""
    if not reference.models and reference.missing:
        raise DocumentMissing("\n".join(reference.notes))
    return reference


NO_LIST = (
    "this horde has no list of models; set model_reference to the address of one"
    " (docs/configuration.md has an example)"
)


def _market(folder: ModelsFolder, reference: Reference) -> Candidates:
    config = folder.config
    try:
        uses = read_uses(folder.documents, config.horde_url)
    except DocumentMissing:
        uses = None
    return Candidates(reference.models, uses, with_large=config.load_large_models)


def _of_kinds(*kinds: Kind) -> Callable[[Reference], list[ReferenceEntry]]:
    return lambda reference: [row for row in reference.entries.values() if row.kind in kinds]


def _control_nets(reference: Reference) -> list[ReferenceEntry]:
    """All that the horde's first nine control types and QR codes need."""
    return [
        row
        for row in _of_kinds(Kind.control_net, Kind.annotator)(reference)
        if row.name in _QR_CODES or row.files[0].path.name in CLASSIC_NAMES
    ]


def _extended_control_nets(reference: Reference) -> list[ReferenceEntry]:
    """What the other control types need beside that."""
    needed = file_names(EXTENDED) - CLASSIC_NAMES
    rows = _of_kinds(Kind.control_net, Kind.annotator)(reference)
    return [row for row in rows if row.files[0].path.name in needed]


def _classic_annotators(reference: Reference) -> list[ReferenceEntry]:
    return [row for row in _control_nets(reference) if row.kind is Kind.annotator]


def _alchemist(config: BridgeConfig, reference: Reference) -> list[ReferenceEntry]:
    """What the forms need that the owner wants, as far as it can be downloaded."""
    forms = wanted_forms(config)
    topics = (topic for topic in Topic if topic in forms or topic in _scored(config))
    types = map(ControlType, config.annotation_types or CLASSIC) if ANNOTATION in forms else ()
    post_processors = _of_kinds(Kind.upscaler, Kind.face_fixer, Kind.codeformer)(reference)
    return [
        *question_entries(topics),
        *(row for row in post_processors if row.name in forms),
        *annotator_entries(types),
    ]


def _scored(config: BridgeConfig) -> tuple[Topic, ...]:
    return (Topic.aesthetic,) if config.aesthetic_score else ()


ALCHEMIST = "alchemist"
_GROUPS: Mapping[str, Callable[[Reference], list[ReferenceEntry]]] = {
    "controlnets": _control_nets,
    "extended controlnets": _extended_control_nets,
    "annotators": _classic_annotators,
    "upscalers": _of_kinds(Kind.upscaler),
    "safety": _of_kinds(Kind.safety),
    "transparent": _of_kinds(Kind.layer_diffuse),
    "face fixers": _of_kinds(Kind.face_fixer, Kind.codeformer),
}
