"""The benchmark of forms beside pictures, with an engine and a judge that only take their time."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure.forms import FORMS, measure
from benchmarks.measure.simulated import children


def test_pictures_alone_each_form_and_pictures_beside_forms_have_a_row(checkpoint: Path):
    rows = list(measure(checkpoint, 1, children(0.0), warm_up=0))
    assert [(row.what, row.beside) for row in rows] == [
        *((wish.form, "nothing") for wish in FORMS),
        ("pictures", "nothing"),
        ("pictures", "forms"),
    ]
    assert [(row.count, row.faulted) for row in rows] == [(1, 0)] * len(rows)
    assert min(row.p50_seconds for row in rows) > 0
