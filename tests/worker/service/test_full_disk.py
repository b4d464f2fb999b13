"""A disk that is full at each single write: whoever writes bears it, and no id is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.owner import PROJECT
from tests.support.preloaded import FullDisk

LIVES = """
import itertools, logging, os, sys
from contextlib import closing, suppress
from pathlib import Path
from hordelib.errors import DownloadFailed, DownloadRefused
from hordelib.memory.corrections import Corrections
from tests.support.preloaded import FullDisk
from tests.worker.jobs.test_ledger import DONE, asked, job, made
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.results import Failed
from worker.loras.files import LoraRecord
from worker.loras.store import LoraStore, Quota
from worker.models.files.checksums import Checksum, VerifiedFiles
from worker.net.refusal_memo import DownloadMemo
from worker.prediction.seconds_file import Learnt, SecondsFile, TimedJob
from worker.service.orders import Orders
from worker.service.state_folder import StateFolder
from worker.service.logs import set_up_logging
from worker.service.terminal import make_console

def live(home):
    with closing(StateFolder.open(home / "state")) as state:
        Orders(state.path).begin()
        set_up_logging(make_console(), home / "logs" / "dreamer.log")
        with closing(Ledger(state.path / FILE)) as ledger:
            keep(home)
            for name in "abcd":
                new = asked(name, images=2)
                ledger.popped(new.slots, "m", new.asked)
            first, second = job("b", 2)
            ledger.made([made(first, bytes(9000)), made(second, bytes(9000))])
            ledger.failed(Failed(job("c")[0], "why", 7))
            ledger.ended("d-0", DONE)
            logging.warning("a line in the log")
            ledger.tend()
            disk.clear()
        Orders(state.path).end()

def keep(home):
    SecondsFile(home / "state" / "seconds.json", "card").write(
        {"sd1": Learnt((TimedJob({"step": 1.0}, 2.0),))})
    Corrections("card", home / "state" / "memory.json").put("sd1", 2.0)
    VerifiedFiles(home).remember(home / "models" / "a", Checksum("ab" * 32))
    DownloadMemo(home / "asked.json").remember_refusal("x", DownloadRefused("no", 86400.0))
    with suppress(DownloadFailed, OSError):  # which is the finder's to bear
        store = LoraStore(home / "models" / "lora", Quota(lambda: 1 << 20, 0, lambda: 1 << 30))
        about = LoraRecord(name="Ink", model_id=1, version_id=7, size_bytes=1)
        with store.arrival("1-7", about, "job") as path:
            path.write_bytes(b"a")

def live_again(home):
    with closing(Ledger(home / "state" / FILE)) as ledger:
        ids = sorted(image.slot.id for owed in ledger.owed() for image in owed.results.images)
    assert ids == ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1", "d-1"], ids

disk, lasts = FullDisk.here(), int(sys.argv[2])
first, every = int(sys.argv[3]), int(sys.argv[4])
for write in itertools.count(first, every):
    home = Path(sys.argv[1]) / str(write)
    home.mkdir()
    (home / "models").mkdir()
    (home / "models" / "a").touch()
    if not (child := os.fork()):
        disk.fill_at(write, write + lasts)
        live(home)
        live_again(home)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"a disk that is full at write {write}"
    if disk.last < write:
        break
print(write, "writes")
"""


EVERY = 9  # 1 tries each of the writes, which takes some ten seconds


@pytest.mark.parametrize(
    ("lasts", "first"), [(1, 1), (1 << 40, 1 + EVERY // 2)], ids=["once", "from then on"]
)
def test_no_write_that_fails_loses_an_id_or_raises(tmp_path: Path, lasts: int, first: int):
    home = tmp_path / "home"
    home.mkdir()
    disk = FullDisk(tmp_path / "disk", home)
    program = tmp_path / "lives.py"
    program.write_text(LIVES, "utf-8")
    done = subprocess.run(
        [sys.executable, "-P", program, home, str(lasts), str(first), str(EVERY)],
        env={**os.environ, **disk.environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split()[-2]) > 100
    assert done.stderr.count("is kept in memory") > 5
