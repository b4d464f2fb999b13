"""Files that are replaced at once, also where a reader is in the way for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hordelib.files.whole_files import move_over, write_whole


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], threading.Event]:
    """As Windows does, the system refuses to replace a file that this process has open."""
    events: dict[Path, threading.Event] = {}
    replace = Path.replace

    def replaced(fresh: Path, path: Path) -> Path:
        opened = {each.resolve() for each in Path("/proc/self/fd").iterdir()}
        if path.resolve() in opened:
            events[path].set()
            raise PermissionError(13, "Access is denied", str(path))
        return replace(fresh, path)

    monkeypatch.setattr(Path, "replace", replaced)
    return lambda path: events.setdefault(path, threading.Event())


def test_a_reader_delays_a_file_that_is_replaced_and_sees_all_of_the_old_one(
    tmp_path: Path, refused: Callable[[Path], threading.Event]
):
    fresh, path = tmp_path / "fresh", tmp_path / "state"
    fresh.write_text("new")
    path.write_text("old")
    is_refused = refused(path)

    def read() -> None:
        with path.open() as file:
            is_opened.set()
            assert is_refused.wait(60)
            seen.append(file.read())

    seen: list[str] = []
    is_opened = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert is_opened.wait(60)
    move_over(fresh, path, tries=1200)
    reader.join()
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_one_who_never_closes_it_is_told_and_nothing_is_lost(
    tmp_path: Path, refused: Callable[[Path], threading.Event]
):
    path = tmp_path / "state"
    path.write_text("old")
    refused(path)
    with path.open(), pytest.raises(PermissionError, match="Access is denied"):
        write_whole(path, b"new")
    assert path.read_text() == "old"
