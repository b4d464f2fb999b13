"""What the horde is told that this worker is, and what its owner loses by that."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hordelib.files.model import Model
from hordelib.job.families import FLUX, SD1, SDXL, Family
from hordelib.job.samplers import Scheduler as ServedScheduler
from hordelib.job.samplers import find_sampler
from worker.cli.check import Verdict, introduced
from worker.cli.serving import unserved, warnings_of
from worker.config.keys import BridgeConfig
from worker.models.capabilities import Installed
from worker.models.introduction import (
    AGENT_WITHOUT_QR,
    NEWEST_AGENT,
    NEWEST_VERSIONS,
    Introduction,
    introduction,
)
from worker.models.opening import Models
from worker.sandbox.rules.capabilities import FEATURES, BridgeAgent
from worker.sandbox.wire import Sampler, Scheduler

QR_NET = "control_v1p_sd15_qrcode_monster_v2.safetensors"


def models_of(*families: Family) -> Models:
    return Models({family.name: Model(family.name, family, {}) for family in families}, ())


def configured(**more: object) -> BridgeConfig:
    values = {"api_key": "k", "dreamer_name": "w", "models_to_load": ["Mine"]}
    at = {"horde_url": "http://127.0.0.1:9", "safety": "best_effort"}
    return BridgeConfig.model_validate(values | at | more)


def test_what_an_older_worker_loses_is_told_with_the_file_that_cures_it(tmp_path: Path):
    models = models_of(SD1)
    (_, finding) = introduced(configured(), tmp_path, models)
    assert finding.verdict is Verdict.warning
    assert "models add control_qr" in finding.remedy
    assert "GB" in finding.remedy
    (line,) = warnings_of(configured(), tmp_path, models)
    assert finding.detail.startswith(line.partition(";")[0])
    assert finding.remedy in line
    assert len(line) < 300
    net = tmp_path / "models" / "controlnet" / QR_NET
    net.parent.mkdir(parents=True)
    net.touch()
    (reward,) = introduced(configured(), tmp_path, models)
    assert reward.verdict is Verdict.ok


def test_only_what_its_owner_asked_for_is_warned_of_at_the_start(tmp_path: Path):
    asked = configured(bridge_agent="mine:1:https://example.org", allow_controlnet=True)
    assert warnings_of(asked, tmp_path, models_of(SD1)) == [
        "allow_controlnet: true, and not offered; check says what is missing"
    ]
    assert unserved(asked, tmp_path, models_of(SD1)) == [
        "allow_post_processing",
        "allow_controlnet",
        "allow_extended_controlnet",
    ]


@pytest.mark.parametrize(
    ("families", "more"), [((SDXL,), {}), ((SD1,), {"bridge_agent": "mine:1:https://example.org"})]
)
def test_who_loses_nothing_or_chose_it_is_told_nothing(
    tmp_path: Path, families: tuple[Family, ...], more: dict[str, object]
):
    (reward,) = introduced(configured(**more), tmp_path, models_of(*families))
    assert reward.verdict is Verdict.ok


@pytest.mark.parametrize(
    ("agent", "share"),
    [
        ("AI Horde Worker reGen:18.0.0:x", "100 %"),
        ("AI Horde Worker reGen:17.17.0:x", "90 %"),
        ("AI Horde Worker:24.1.0:x", "100 %"),
        ("AI Horde Worker:23.9:x", "90 %"),
        ("Dreamer:1.0.0:x", "75 %"),
    ],
)
def test_the_owner_is_told_which_share_of_the_rewards_it_gets(
    tmp_path: Path, agent: str, share: str
):
    (reward,) = introduced(configured(bridge_agent=agent), tmp_path, models_of(SDXL))
    assert reward.detail.startswith(share)
    assert Introduction(agent).share == BridgeAgent.parse(agent).kudos_factor


def test_the_newest_versions_are_the_servers():
    newest = {name: max(FEATURES[name]) for name in NEWEST_VERSIONS}
    assert newest == NEWEST_VERSIONS


def test_every_sampler_and_schedule_of_the_newest_version_is_served():
    assert {name for name in get_args(Sampler) if find_sampler(name) is None} == set()
    assert {*get_args(Scheduler)} <= {schedule.value for schedule in ServedScheduler}


def test_a_worker_with_flux_is_never_introduced_as_one_that_flux_is_kept_from(tmp_path: Path):
    models = models_of(SD1, FLUX)
    how = introduction(Installed(tmp_path), models.served.values())
    assert "flux" in BridgeAgent.parse(how.bridge_agent).features
    (_, finding) = introduced(configured(), tmp_path, models)
    assert finding.verdict is Verdict.warning
    assert "models add control_qr" in finding.remedy


def test_what_is_told_is_what_the_server_does(tmp_path: Path):
    lost = introduction(Installed(tmp_path), models_of(SD1).served.values()).lost
    old, new = BridgeAgent.parse(AGENT_WITHOUT_QR), BridgeAgent.parse(NEWEST_AGENT)
    told = {
        "tiling": "tiling",
        "lora_versions": "LoRAs by their version",
        "extra_source_images": "several source pictures",
        "extended_controlnet": "extended control types",
        "scheduler": "schedules but normal and karras",
        "sigma_generators": "schedules but normal and karras",
        "solver_options": "options of samplers",
        "solver_knob_samplers": "27 newest samplers",
        "flow_shift": "flow_shift",
        "control_strength": "control_strength",
        "flux": "",  # who offers Flux is never introduced so
    }
    features = new.features - old.features
    others = features - {"workflow", "extra_texts", "transparent"} - told.keys()
    assert len(others) == 8
    for word in ("DDIM and karras", "lcm", "eight newest upscalers", *told.values()):
        assert word in lost
    assert new.samples("DDIM", karras=True)
    assert not old.samples("DDIM", karras=True)
    assert not old.samples("lcm", karras=False)
