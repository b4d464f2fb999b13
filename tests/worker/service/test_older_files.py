"""What earlier versions left in an owner's folder is taken up: see tests/samples."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.memory.corrections import Corrections
from tests.support.owner import PROJECT
from worker.config.config import load_config
from worker.horde.api import Job
from worker.jobs.ledger import FILE, FORMAT, Ledger
from worker.jobs.results import Failed, JobStage, Made
from worker.jobs.totals import read_totals
from worker.prediction.seconds_file import SecondsFile
from worker.service.history import FILE as HISTORY
from worker.service.history import HOUR, History
from worker.service.orders import Order, Orders

SAMPLES = sorted(path.parent for path in (PROJECT / "tests" / "samples").glob("*/bridgeData.yaml"))
NOTE = GenMetadata(MetadataType.LORA, MetadataValue.DOWNLOAD_FAILED, "a LoRA")


@pytest.fixture(params=SAMPLES, ids=lambda sample: sample.name)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An owner's folder as that version left it a minute ago, with its jobs still in time."""
    home = tmp_path / request.param.name
    shutil.copytree(request.param, home)
    for dump in (home / "state").glob("*.sql"):
        with closing(sqlite3.connect(dump.with_suffix(".sqlite"))) as db:
            db.executescript(dump.read_text("utf-8"))
        dump.unlink()
    with closing(sqlite3.connect(home / "state" / FILE)) as db, db:
        db.execute("UPDATE images SET over_at = ?", (time.time() + 150,))
        db.execute("UPDATE images SET ended_at = ? WHERE ended_at > 0", (time.time() - 60,))
    return home


def test_there_is_a_sample_of_each_format():
    dumps = [(sample / "state" / "ledger.sql").read_text("utf-8") for sample in SAMPLES]
    found = {int(dump.partition(";")[0].rpartition("=")[2]) for dump in dumps}
    assert found == set(range(1, len(FORMAT.steps) + 1))


def test_bridge_data_is_read_as_it_is(home: Path):
    config = load_config(home / "bridgeData.yaml")
    assert config.dreamer_name == "An old rig"
    assert config.models_to_load == ("Deliberate",)


def test_the_ledger_goes_on(home: Path):
    with closing(Ledger(home / "state" / FILE)) as ledger:
        assert not ledger.trouble
        assert len(ledger.drop_ages()) == 1
        assert ledger.known(["done-0", "popped-0"]) == {"done-0", "popped-0"}
        owed = {each.results.job_id: each for each in ledger.owed()}
    (picture,) = owed["made-0"].results.images
    assert isinstance(picture, Made)
    assert picture.webp == b"RIFF....WEBP a picture"
    assert (picture.seed, picture.prompt) == ((1 << 64) - 1, "a cat###a dog")
    assert picture.use_nsfw_censor
    assert picture.notes == (NOTE,)
    totals = read_totals(home / "state" / FILE)
    assert totals.images[JobStage.submitted] == 2
    assert totals.images[JobStage.faulted] == 1
    assert (totals.kudos, totals.lost_pops) == (11.0, 1)
    popped = owed["popped-0"]
    if popped.job is None:  # that version kept nothing of what was asked
        assert home.name == "first"
        assert [type(each) for each in popped.results.images] == [Failed]
    else:
        assert isinstance(popped.job, Job)
        assert popped.job.payload["prompt"] == "a red circle"


@pytest.mark.parametrize("home", [SAMPLES[0]], indirect=True, ids=lambda sample: sample.name)
def test_what_the_first_release_has_learnt_and_counted_is_used(home: Path):
    learnt = SecondsFile(home / "state" / "seconds.json", "a card").read()
    assert [job.seconds for job in learnt["sd1"].jobs] == [2.0]
    assert Corrections("a card", home / "state" / "memory.json").of("sd1") > 1
    with closing(History(home / "state" / HISTORY, now=lambda: 490_000.5 * HOUR)) as history:
        (hour,) = history.hours(24)
    assert (hour.images, hour.failed, hour.kudos) == (12, 1, 150.5)
    assert hour.faults == {"a reason": 1}


def test_a_pause_holds(home: Path):
    assert Orders(home / "state").is_given(Order.pause)
