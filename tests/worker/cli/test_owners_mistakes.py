"""Small mistakes of an owner, and a horde of their own: told with the key, the value and a way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hordelib.job.payload import LoraRequest
from tests.support.owner import Home, config
from tests.support.sandbox_client import MODEL
from worker.__main__ import make_parser
from worker.cli.check import Verdict, _load
from worker.cli.exit_codes import ExitCode
from worker.cli.models_command import run_models_command
from worker.clock import elapsed_seconds
from worker.config.config import load_config
from worker.errors import ConfigError, DocumentMissing, UnknownModel, UsageError
from worker.loras.adapters import Search
from worker.models.inventory import ModelsFolder
from worker.models.opening import find_models
from worker.models.sites import read_uses
from worker.sandbox import Sandbox
from worker.service.assembly import make_adapters
from worker.setup.account import account_findings

BASE = "api_key: a-key\ndreamer_name: me\n"
NOBODY = "http://127.0.0.1:9"


def folder_of(home: Home) -> ModelsFolder:
    return ModelsFolder.of(load_config(home.folder / "bridgeData.yaml"), home.folder)


def models(home: Home, *arguments: str) -> int:
    return run_models_command(folder_of(home), make_parser().parse_args(["models", *arguments]))


def test_a_folder_that_is_not_there_is_not_made(home: Home):
    home.write(f"{BASE}models_to_load: ['{MODEL}']\ncache_home: /nowhr\n")
    with pytest.raises(ConfigError, match=r"cache_home: there is no folder /nowhr; make it"):
        folder_of(home)
    found = _load(home.folder, home.folder / "bridgeData.yaml")
    assert isinstance(found, list)
    (finding,) = found
    assert "mkdir -p /nowhr" in finding.detail
    assert finding.verdict is Verdict.failed
    assert not Path("/nowhr").exists()


@pytest.mark.parametrize(
    ("baseline", "is_right"), [("stable_diffusion_xl", False), ("stable diffusion 1", True)]
)
def test_a_custom_model_is_of_the_family_that_its_owner_says(
    home: Home, checkpoint: Path, baseline: str, is_right: bool
):
    home.write(
        f"{BASE}custom_models:\n"
        f"  - {{name: mine, baseline: {baseline}, filepath: '{checkpoint}'}}\n"
    )
    found = find_models(load_config(home.folder / "bridgeData.yaml"), home.folder)
    assert ("mine" in found.served) == is_right
    told = "custom_models: 'mine': its file is of stable diffusion 1, not of stable_diffusion_xl"
    assert [each.startswith(told) for each in found.problems] == ([] if is_right else [True])


def test_custom_models_without_the_role_are_told_before_the_horde_refuses_them(
    home: Home, horde: Sandbox, checkpoint: Path
):
    custom = f"[{{name: mine, baseline: stable diffusion 1, filepath: '{checkpoint}'}}]"
    home.write(config(horde, more=f"custom_models: {custom}\n"))
    *_, last = account_findings(load_config(home.folder / "bridgeData.yaml"))
    assert (last.name, last.verdict) == ("custom models", Verdict.failed)
    assert "customizer" in last.detail
    assert "leave custom_models out" in last.remedy


def test_the_models_of_a_horde_without_a_list(
    home: Home, horde: Sandbox, capsys: pytest.CaptureFixture[str]
):
    home.write(config(horde))
    assert models(home, "list") == ExitCode.OK
    assert "stable diffusion 1" in capsys.readouterr().out
    assert models(home, "verify") == ExitCode.OK
    assert "not in the reference" in capsys.readouterr().out
    assert models(home, "disk") == ExitCode.OK
    told = capsys.readouterr().out
    assert "?" not in told
    assert "always stay free" in told
    with pytest.raises(UsageError, match="this horde has no list of models; set model_reference"):
        models(home, "top")
    for action in ("add", "remove"):
        with pytest.raises(UnknownModel, match=r"'Deliberate' is not in .*: this horde has"):
            models(home, action, "Deliberate")
    with pytest.raises(DocumentMissing, match=r"^this horde has no usage statistics$"):
        read_uses(folder_of(home).documents, horde.url)


def test_a_lora_that_nobody_has_is_told_to_the_owner_too(
    home: Home, caplog: pytest.LogCaptureFixture
):
    home.write(f"{BASE}models_to_load: ['{MODEL}']\n")
    owned = load_config(home.folder / "bridgeData.yaml")
    adapters = make_adapters(owned, home.folder / "loras", (NOBODY,))
    search = Search("a-job", "stable diffusion 1", elapsed_seconds() + 2)
    with caplog.at_level(logging.INFO):
        found = adapters.find([LoraRequest("Nobody's")], [], 1, search)
    assert len(found.notes) == 1
    assert 'job a-job is made without LoRA "Nobody\'s"' in caplog.text
