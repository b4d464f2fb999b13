"""The one command for a card, where there is none: what it tells, leaves out and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.card import card, steps
from benchmarks.card.card import FOUND, STEPS, Step
from hordelib import Engine
from hordelib.demo_model import ensure_checkpoint


def test_each_step_of_the_table_has_its_function():
    names = {step.function or step.name for step in STEPS}
    assert names == steps.STEPS.keys()


def test_facts_are_a_table_and_a_json_and_what_needs_a_card_says_so(tmp_path: Path):
    found = tmp_path / "card.json"
    arguments = ["--quick", "--only", "facts,tests", "--folder", str(tmp_path)]
    assert main(["card", *arguments, "--json", str(found)]) == 0
    rows: list[dict[str, Any]] = json.loads(found.read_text())["results"]
    assert not any(row["error"] for row in rows)
    told = {row["what"]: row for row in rows if row["step"] == "facts"}
    assert told["torch"]["told"]
    assert told["copy of pageable memory"]["value"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"], "nothing is left"


def test_a_step_whose_time_is_over_or_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = (Step("facts", 0.01), Step("soak", 60, function="unknown"), Step("tests", 600))
    monkeypatch.setattr(card, "STEPS", table)
    monkeypatch.setattr(card, "NEEDS_NO_MODELS", {"facts", "soak", "tests"})
    found = tmp_path / "card.json"
    assert main(["card", "--quick", "--folder", str(tmp_path), "--json", str(found)]) == 0
    rows: list[dict[str, Any]] = json.loads(found.read_text())["results"]
    over, failed, *_, last = rows
    assert "its time was over" in over["error"]
    assert "invalid choice" in failed["error"]
    assert (last["step"], last["error"]) == ("tests", "")


@pytest.mark.parametrize(
    "arguments", [["--only", "fact"], ["--folder", "no such folder"], ["--minutes", "0"]]
)
def test_what_can_not_be_is_refused_by_name(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    try:
        code = main(["card", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.usefixtures("engine")
def test_a_step_makes_pictures_and_says_what_they_took(
    tmp_path: Path, models: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
):
    engine.start()
    (tmp_path / "demo.safetensors").hardlink_to(ensure_checkpoint(models))
    assert steps.main(["overhead", str(tmp_path), "--tiny"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(FOUND))
    told = json.loads(line.removeprefix(FOUND))
    assert (told["unit"], told["value"] > 0) == ("ms", True)
