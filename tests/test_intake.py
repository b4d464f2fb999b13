from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hordelib.errors import JobError, NotServed
from tests.test_params import PAYLOAD
from worker.intake import take_in
from worker.wire import Job

MODELS = {"Deliberate": Path("deliberate.safetensors")}


def job(payload: dict[str, Any] | None = None, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "ids": ("a", "b"),
        "model": "Deliberate",
        "payload": PAYLOAD | (payload or {}),
        "ttl_seconds": 150,
        "upload_urls": ("http://one", "http://two"),
        "popped_at": 0.0,
    }
    return Job(**values | changes)


def test_there_are_as_many_images_as_ids_whatever_the_payload_says():
    assert take_in(job({"n_iter": 7}), MODELS).params.images == 2


def test_a_model_that_is_not_offered_is_refused():
    with pytest.raises(JobError, match="'Anything'"):
        take_in(job(model="Anything"), MODELS)


def test_a_source_image_is_refused_by_name():
    with pytest.raises(NotServed, match="source_image"):
        take_in(job(source_image="http://source"), MODELS)


@pytest.mark.parametrize("tis", [None, [], "x", [7], [{}]])
def test_odd_lists_of_textual_inversions_are_no_trouble(tis: Any):
    assert take_in(job({"tis": tis}), MODELS).notes == ()


def test_what_is_left_out_is_noted():
    payload = {"tis": [{"name": "7808", "strength": 1.0}], "use_nsfw_censor": True}
    bodies = [note.body() for note in take_in(job(payload), MODELS).notes]
    assert bodies[0] == {"type": "ti", "value": "download_failed", "ref": "7808"}
    assert bodies[1]["type"] == "information"
    assert "use_nsfw_censor" in bodies[1]["ref"]
