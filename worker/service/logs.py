"""The worker's log: on the screen, and in a file that is rotated by its size."""

from __future__ import annotations

import errno
import json
import logging
from datetime import datetime
from enum import StrEnum
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from hordelib.files.whole_files import for_owner, make_private

LOG_FILE_BYTES, LOG_FILES = 5 << 20, 3
_LINE = "%(asctime)s %(levelname)-7s %(message)s"


class LogWay(StrEnum):
    """How lines are written."""

    auto = "auto"  # in columns on a terminal, plain elsewhere
    plain = "plain"
    json = "json"  # one object a line, on the screen and in the file


def is_plain(console: Console, way: LogWay) -> bool:
    """Whether lines are written one below the other, and nothing is drawn."""
    return way is not LogWay.auto or not console.is_terminal


def line_formatter(way: LogWay) -> logging.Formatter:
    """The local time, the level once, and what is told."""
    if way is LogWay.json:
        return JsonFormatter()
    return logging.Formatter(_LINE, "%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (ISO 8601 with the zone), `level`, `logger`, `message`, and
    `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        told = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


class _OwnersLog(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=for_owner)


def open_log(log_file: Path) -> RotatingFileHandler:
    """The rotated log, for the owner alone. Raises OSError where it can't be written."""
    make_private(log_file.parent)
    return _OwnersLog(log_file, "a", LOG_FILE_BYTES, LOG_FILES, "utf-8")


def screen_handler(console: Console, way: LogWay = LogWay.auto) -> logging.Handler:
    """Log lines on the console: in columns on a terminal, which brings their time and level."""
    if is_plain(console, way):
        screen: logging.Handler = logging.StreamHandler()
        screen.setFormatter(line_formatter(way))
    else:
        screen = RichHandler(
            console=console, show_path=False, markup=False, log_time_format="%H:%M:%S"
        )
        screen.setFormatter(logging.Formatter("%(message)s"))
    return screen


def set_up_logging(
    console: Console,
    log_file: Path,
    screen_level: int = logging.INFO,
    *,
    way: LogWay = LogWay.auto,
) -> None:
    """The worker's log on the console and, rotated, in `log_file`; failing to write is no error."""
    logging.raiseExceptions = False
    file_lines = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    screen = screen_handler(console, way)
    screen.setLevel(screen_level)
    logging.basicConfig(level=logging.INFO, handlers=[screen])
    try:
        file = open_log(log_file)
    except OSError as error:
        remedy = "remove the link" if log_file.is_symlink() else "make it writable for you"
        if error.errno == errno.ENOSPC:
            remedy = "free some disk space"
        told = "nothing is logged to %s (%s): %s, then start again"
        logging.getLogger(__name__).warning(told, log_file, error.strerror, remedy)
        return
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, _OwnersLog)]:
        root.removeHandler(earlier)  # of a life before in the same process
        earlier.close()
    file.setFormatter(JsonFormatter() if way is LogWay.json else file_lines)
    root.addHandler(file)
