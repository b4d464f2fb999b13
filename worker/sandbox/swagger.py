"""What the horde says of itself: the definitions of its swagger that workers look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from worker.sandbox.kinds.alchemy_wire import PlainForm
from worker.sandbox.replies import Json
from worker.sandbox.wire import MetadataType, MetadataValue, PopBody, PostProcessor

_NEWER_FORMS = ("annotation",)
_NEWER_KEYS = frozenset({"allow_extended_controlnet", "sampler_execution_contract_version"})
_INHERITED = frozenset({"name", "models", "bridge_agent", "nsfw", "amount", "threads"})


def swagger(*, is_newest: bool) -> Json:
    """The newest server's, or that of 5.1.5."""
    forms = (*get_args(PlainForm), *(_NEWER_FORMS if is_newest else ()), *get_args(PostProcessor))
    keys = [
        key
        for key in PopBody.model_fields
        if key not in _INHERITED and (is_newest or key not in _NEWER_KEYS)
    ]
    return {
        "swagger": "2.0",
        "basePath": "/api",
        "definitions": {
            "ModelInterrogationFormStable": _fields({"name": _words(forms)}),
            "GenerationMetadataStable": _fields(
                {"type": _words(get_args(MetadataType)), "value": _words(get_args(MetadataValue))}
            ),
            "PopInputStable": {
                "allOf": [{"$ref": "#/definitions/PopInput"}, _fields({key: {} for key in keys})]
            },
        },
    }


def _fields(fields: Mapping[str, Json]) -> Json:
    return {"type": "object", "properties": dict(fields)}


def _words(words: tuple[str, ...]) -> Json:
    return {"type": "string", "enum": list(words)}
