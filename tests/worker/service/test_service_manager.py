"""Whether systemd starts this service again at once: its own command, as a program that answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.service_manager import restart_follows


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process as the service dreamer of a user, and the program that is asked."""
    groups = tmp_path / "cgroup"
    groups.write_text(
        "9:name=systemd:/\n0::/user.slice/user@1000.service/app.slice/dreamer.service\n"
    )
    monkeypatch.setattr("worker.service_manager.CGROUPS", groups)
    monkeypatch.setenv("INVOCATION_ID", "ccc27bfe86f54227a87f522a65dba539")
    monkeypatch.setenv("MANAGERPID", "7")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemctl"


def answer(program: Path, text: str) -> None:
    program.write_text(f'#!/bin/sh\necho "$@" > "{program}.asked"\necho "{text}"\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ("31 dreamer.service restart running", True),
        ("31 dreamer.service stop running", False),
        ("31 other.service restart running", False),
        ("", False),
        ("No jobs running.", False),
    ],
)
def test_the_queue_of_jobs_tells_a_restart_from_a_stop(
    service: Path, answered: str, expected: bool
):
    answer(service, answered)
    assert restart_follows() is expected
    asked = service.with_name("systemctl.asked").read_text()
    assert asked == "--user list-jobs --plain --full --no-legend dreamer.service\n"


def test_nobody_is_asked_outside_of_a_service(service: Path, monkeypatch: pytest.MonkeyPatch):
    answer(service, "31 dreamer.service restart running")
    monkeypatch.delenv("INVOCATION_ID")
    assert not restart_follows()
    monkeypatch.setenv("INVOCATION_ID", "1")
    monkeypatch.setattr("worker.service_manager.CGROUPS", service.with_name("none"))
    assert not restart_follows()
    assert not service.with_name("systemctl.asked").exists()


def test_who_does_not_answer_in_time_knows_nothing(service: Path, monkeypatch: pytest.MonkeyPatch):
    service.write_text("#!/bin/sh\nexec sleep 60\n")
    service.chmod(0o755)
    monkeypatch.setattr("worker.service_manager.ASK_SECONDS", 0.2)
    assert not restart_follows()
