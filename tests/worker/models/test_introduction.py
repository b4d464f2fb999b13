"""What the horde is told that this worker is, and what its owner loses by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.files.model import Model
from hordelib.job.families import SD1, SDXL, Family
from worker.cli.check import Verdict, introduced
from worker.cli.commands import warnings_of
from worker.config.config import BridgeConfig
from worker.models.capabilities import AGENT_WITHOUT_QR, NEWEST_AGENT, introduction
from worker.models.opening import Models
from worker.sandbox.rules.capabilities import BridgeAgent

QR_NET = "control_v1p_sd15_qrcode_monster_v2.safetensors"


def models_of(*families: Family) -> Models:
    return Models({family.name: Model(family.name, family, {}) for family in families}, ())


def configured(**more: object) -> BridgeConfig:
    values = {"api_key": "k", "dreamer_name": "w", "models_to_load": ["Mine"]}
    at = {"horde_url": "http://127.0.0.1:9", "safety": "best_effort"}
    return BridgeConfig.model_validate(values | at | more)


def test_what_an_older_worker_loses_is_told_with_the_file_that_cures_it(tmp_path: Path):
    models = models_of(SD1)
    (finding,) = introduced(configured(), tmp_path, models)
    assert finding.verdict is Verdict.warning
    assert "models add control_qr" in finding.remedy
    assert "GB" in finding.remedy
    assert finding.detail in "\n".join(warnings_of(configured(), tmp_path, models))
    net = tmp_path / "models" / "controlnet" / QR_NET
    net.parent.mkdir(parents=True)
    net.touch()
    assert not [*introduced(configured(), tmp_path, models)]


@pytest.mark.parametrize(
    ("families", "more"), [((SDXL,), {}), ((SD1,), {"bridge_agent": "mine:1:https://example.org"})]
)
def test_who_loses_nothing_or_chose_it_is_told_nothing(
    tmp_path: Path, families: tuple[Family, ...], more: dict[str, object]
):
    assert not [*introduced(configured(**more), tmp_path, models_of(*families))]


def test_what_is_told_is_what_the_server_does(tmp_path: Path):
    lost = introduction(tmp_path, models_of(SD1).served.values()).lost
    old, new = BridgeAgent.parse(AGENT_WITHOUT_QR), BridgeAgent.parse(NEWEST_AGENT)
    features = new.features - old.features - {"workflow", "extra_texts", "transparent"}
    assert len(features - {"tiling", "lora_versions", "extra_source_images"}) == 8
    for word in ("DDIM and karras", "lcm", "tiling", "LoRAs by their version", "source pictures"):
        assert word in lost
    assert new.samples("DDIM", karras=True)
    assert not old.samples("DDIM", karras=True)
    assert not old.samples("lcm", karras=False)
