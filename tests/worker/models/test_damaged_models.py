"""Files that go bad under a worker that serves: a real bridge, a real engine, the local horde."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support.family_files import UNET
from tests.support.owner import wait_for
from tests.support.reference_server import old_row, reference_server
from tests.support.sandbox_client import CLIENT_KEY, WORKER_KEY, Api
from worker.config.keys import BridgeConfig
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.offered import OfferedModels
from worker.sandbox import ReferenceModel, Sandbox, State
from worker.service.assembly import make_bridge, make_intake

PARAMS = {"width": 64, "height": 64, "steps": 2, "sampler_name": "k_euler", "karras": False}
FRAIL, SOUND = "Frail", "Sound"


@dataclass
class Service:
    """A worker that serves two models, of which one is done harm to."""

    sandbox: Sandbox
    client: Api
    offered: OfferedModels
    journal: Journal
    path: Path  # of the frail model's file
    whole: Path  # what belongs there

    def ask(self, model: str, steps: int = 2) -> str:
        return self.client.ask_id(PARAMS | {"steps": steps}, models=[model])

    def finish(self, request: str) -> State:
        """How the request's last image ended."""
        wait_for(lambda: self.sandbox.books().request(request).done)
        return self.sandbox.books().of_request(request)[-1].state

    def offers(self, model: str) -> bool:
        return model in self.offered.offer().models

    def restore(self) -> None:
        self.path.unlink(missing_ok=True)
        shutil.copyfile(self.whole, self.path)


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    home = tmp_path_factory.mktemp("owner")
    frail, sound = (home / "models" / "compvis" / f"{name}.safetensors" for name in (FRAIL, SOUND))
    frail.parent.mkdir(parents=True)
    whole = _of_full_precision(checkpoint, home / "whole.safetensors")
    shutil.copyfile(whole, frail)
    os.link(checkpoint, sound)
    with (
        reference_server() as site,
        Sandbox(
            {name: ReferenceModel("stable diffusion 1") for name in (FRAIL, SOUND)}, limits={}
        ) as sandbox,
        Api(sandbox.url, CLIENT_KEY) as client,
        closing(Ledger(None)) as ledger,
    ):
        rows = {
            path.stem: old_row(path.stem, path.name, site.url, _sha256(path))
            for path in (frail, sound)
        }
        site.pages["/reference/stable_diffusion.json"] = rows
        config = BridgeConfig.model_validate(
            {
                "api_key": WORKER_KEY,
                "dreamer_name": "tester",
                "cache_home": str(home),
                "horde_url": sandbox.url,
                "model_reference": f"{site.url}/reference",
                "models_to_load": [FRAIL, SOUND],
                "ram_to_leave_free": "256 MiB",
            }
        )
        offering = ModelOffering(take_inventory(ModelsFolder.of(config, home)))
        models = offering.first_models()
        intake = make_intake(config, home, models)
        journal = Journal(ledger)
        bridge = make_bridge(config, home, models, journal, intake=intake)
        with offering.kept_up(intake.offered):
            bridge.start()
            service = Service(sandbox, client, intake.offered, journal, frail, whole)
            wait_for(lambda: len(intake.offered.models) == 2)
            yield service
            bridge.stop()
            assert bridge.join(60), bridge.busy
            assert bridge.failure is None


def _of_full_precision(checkpoint: Path, into: Path) -> Path:
    """The same model, whose UNet computes straight from the file's pages."""
    weights = load_file(checkpoint)
    save_file({n: w.float() if n.startswith(UNET) else w for n, w in weights.items()}, into)
    return into


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cut_short(service: Service) -> None:
    os.truncate(service.path, 100 << 20)


def overwrite(service: Service) -> None:
    with service.path.open("r+b") as file:
        for _ in range(service.path.stat().st_size >> 20):
            file.write(os.urandom(1 << 20))


def delete(service: Service) -> None:
    service.path.unlink()


def swap(service: Service) -> None:
    """For another model that is as good."""
    new = service.path.with_name("new")
    shutil.copyfile(service.path.with_name(f"{SOUND}.safetensors"), new)
    os.replace(new, service.path)


@pytest.mark.parametrize("harm", [cut_short, overwrite, delete, swap])
def test_a_file_that_goes_bad_between_jobs_leaves_the_offer_until_it_is_whole_again(
    service: Service, harm: Callable[[Service], None], caplog: pytest.LogCaptureFixture
):
    assert service.finish(service.ask(FRAIL)) is State.ok
    harm(service)
    assert_only_the_other_is_served_until_it_is_whole(service, caplog)


def test_a_file_that_is_cut_short_under_its_job_costs_that_job_and_no_other(
    service: Service, caplog: pytest.LogCaptureFixture
):
    """What is looked at of a mapped file that is not there any more ends the process: SIGBUS."""
    lost = service.ask(FRAIL, steps=60)
    wait_for(lambda: (row := service.journal.view().running) is not None and row.step > 2)
    cut_short(service)
    assert_only_the_other_is_served_until_it_is_whole(service, caplog)
    images = service.sandbox.books().of_request(lost)
    assert [image.state for image in images] == [State.faulted, State.ok]
    assert "SIGBUS: a file that it had in memory was cut off" in caplog.text


def assert_only_the_other_is_served_until_it_is_whole(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: not service.offers(FRAIL))
    waiting = service.ask(FRAIL)
    assert service.finish(service.ask(SOUND)) is State.ok
    messages = (r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
    (line,) = (message for message in messages if message.startswith(f"{FRAIL} is not offered"))
    assert str(service.path) in line
    assert "put the whole file back" in line

    service.restore()
    assert service.finish(waiting) is State.ok
    (image,) = service.sandbox.books().of_request(waiting)
    assert image.state is State.ok
