"""Takes the newest release of Dreamer into a clone, or leaves the clone as it was.

Only forward, by git, and only where nothing of the clone was changed and no worker runs with it.
What the release needs is installed, then its own `check` is asked: where that finds a fault that
the version before did not have, the clone goes back. Standard library only.

Exit codes: 0 taken, or nothing newer; 1 not now, and the line says why; 3 the release does not work
here; 130 stopped.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
NOT_RUNNING = 1  # the exit code of `status`
FAILED = "FAILED"  # how a line of `check` begins, and its name after it
NAME_COLUMNS = slice(8, 31)
GIT_VARIABLES = {  # no question, no file written for a look, and errors in English
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
REFUSED = "would be overwritten"  # by git, before it writes anything
TAKEN_BACK = "dreamer.takenBack"  # of git's configuration: the release that does not work here
MEND = "./update-runtime.sh mends what is installed"


class NotUpdated(Exception):
    """Why not, with the remedy. The clone is as it was."""

    exit_code = 1


class TakenBack(NotUpdated):
    """The release was tried, and its own check says that it does not work here."""

    exit_code = 3


class Programs:
    """Runs them one after the other. A signal ends the one that runs, and is told by `run`."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None
        self._is_stopped = False
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._stop)

    def _stop(self, _number: int, _frame: object) -> None:
        self._is_stopped = True
        if self._running is not None:
            self._running.terminate()

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        folder: Path | None = None,
        variables: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        """Raises KeyboardInterrupt after the program's end, and OSError where there is none."""
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            cwd=folder,
            env={**os.environ, **variables},
        ) as self._running:
            if self._is_stopped:  # while it was started
                self._running.terminate()
            out, err = self._running.communicate()
        if self._is_stopped:
            self._is_stopped = False  # what is undone now needs programs, too
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, self._running.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Clone:
    project: Path
    runtime: Path
    home: Path
    programs: Programs

    def git(self, *arguments: str) -> str:
        """What it says. Raises NotUpdated with what it says is wrong."""
        try:
            done = self.programs.run(
                ["git", "-C", self.project, *arguments], variables=GIT_VARIABLES
            )
        except OSError as error:
            raise NotUpdated("git is not installed: install it, then run this again") from error
        if done.returncode:
            told = _complaint(done.stderr) or f"exit code {done.returncode}"
            raise NotUpdated(f"git {arguments[0]}: {told}")
        return done.stdout.strip()

    def worker(self, command: str) -> subprocess.CompletedProcess[str]:
        """One of this clone's worker."""
        return self.programs.run(
            [self.python, "-P", "-m", "worker", "--home", self.home, command],
            stderr=subprocess.STDOUT,
            folder=self.project,
            variables={"PYTHONPATH": str(self.project), "DREAMER_RUNTIME": str(self.runtime)},
        )

    @property
    def python(self) -> Path:
        return self.runtime / ".venv" / "bin" / "python"

    def set_up(self) -> bool:
        """With the program of the version that is there now."""
        script = [self.project / "update-runtime.sh", "--quiet"]
        variables = {"DREAMER_RUNTIME": str(self.runtime)}
        done = self.programs.run(script, stdout=None, stderr=None, variables=variables)
        return done.returncode == 0

    def faults(self) -> set[str]:
        """The names of what `check` says has failed; its own crash is one, too."""
        done = self.worker("check")
        lines = done.stdout.splitlines()
        names = {line[NAME_COLUMNS].strip() for line in lines if line.startswith(FAILED)}
        return names if names or not done.returncode else {"check itself"}

    def taken_back(self) -> str:
        """The release that was, the last time; "" where none was."""
        try:
            return self.git("config", "--get", TAKEN_BACK)
        except NotUpdated:
            return ""


def _complaint(stderr: str) -> str:
    """Git's first error with the files that it names, without its advice; else its last line."""
    lines = stderr.strip().splitlines()
    errors = [
        number for number, line in enumerate(lines) if line.startswith(("error: ", "fatal: "))
    ]
    if not errors:
        return lines[-1] if lines else ""
    first, *after = lines[errors[0] :]
    named = itertools.takewhile(lambda line: line.startswith("\t"), after)
    return " ".join([first.partition(": ")[2], *map(str.strip, named)])


def newest_release(clone: Clone) -> str:
    """The tag of the newest one that the branch's upstream has; "" where there is none."""
    tags = clone.git("tag", "--merged", "@{upstream}").splitlines()
    releases = [tag for tag in tags if TAG.fullmatch(tag)]
    return max(releases, key=lambda tag: tuple(map(int, tag[1:].split("."))), default="")


def insist_on_clone(clone: Clone) -> None:
    """Raises NotUpdated where the project's folder is not the top of one."""
    try:
        top = Path(clone.git("rev-parse", "--show-toplevel"))
    except NotUpdated as error:
        if "git is not" in str(error):
            raise
        top = Path()
    if top.resolve() != clone.project.resolve():
        raise NotUpdated(
            f"{clone.project} is no clone of git: update it as it was installed"
            " (pip install --upgrade dreamer-worker, or a newer image)"
        )


def insist_on_no_worker(clone: Clone) -> None:
    """Raises NotUpdated where one would have its files changed under way."""
    if (clone.runtime / ".venv").is_dir() and clone.worker("status").returncode != NOT_RUNNING:
        raise NotUpdated(
            f"a worker runs in {clone.home}: ./horde-bridge.sh drain ends it, then run this again"
        )


def insist_on_no_changes(clone: Clone) -> None:
    """Raises NotUpdated for the first file that is not as it was committed."""
    if changed := clone.git("status", "--porcelain", "--untracked-files=no").splitlines():
        raise NotUpdated(
            f"{changed[0][2:].strip()} was changed in this clone: commit it, or put it aside with"
            " git stash, then run this again"
        )


def find_release(clone: Clone) -> str:
    """Fetch, and return the tag of a newer release that can be taken; "" where there is none.

    Raises NotUpdated.
    """
    try:
        clone.git("rev-parse", "@{upstream}")
    except NotUpdated as error:
        raise NotUpdated("this clone is on no branch that is followed: git switch main") from error
    try:
        clone.git("fetch", "--quiet", "--tags")
    except NotUpdated as error:
        raise NotUpdated(f"{error}: look at network and disk, then run this again") from error
    release = newest_release(clone)
    if not release or not clone.git("rev-list", f"HEAD..{release}"):
        return ""
    if clone.git("merge-base", "HEAD", release) != clone.git("rev-parse", "HEAD"):
        raise NotUpdated(f"this clone has commits that {release} lacks: git rebase {release}")
    return release


def look(clone: Clone) -> str:
    """What `update` would take, as far as a worker that runs allows to know. Raises NotUpdated."""
    insist_on_clone(clone)
    insist_on_no_changes(clone)
    release = find_release(clone)
    if not release:
        raise NotUpdated("the branch that this clone follows has no newer release yet")
    if release == clone.taken_back():
        raise NotUpdated(f"{release} was taken back before; ./update-runtime.sh --self tries again")
    return f"{release} can be taken"


def update(clone: Clone) -> str:
    """What was done, for people. Raises NotUpdated."""
    insist_on_clone(clone)
    insist_on_no_changes(clone)
    insist_on_no_worker(clone)
    before, release = clone.git("rev-parse", "HEAD"), find_release(clone)
    if not release:
        return "there is no newer release"
    faults = clone.faults() if (clone.runtime / ".venv").is_dir() else set[str]()
    insist_on_no_changes(clone)  # the check took a while
    print(f"taking {release}", flush=True)
    try:
        _merge(clone, before, release)
        _insist_on_working(clone, release, faults)
    except TakenBack:
        clone.git("config", TAKEN_BACK, release)
        _go_back(clone, before)
        raise
    except NotUpdated:  # a full disk, or no network
        _go_back(clone, before)
        raise
    except KeyboardInterrupt:
        _reset(clone, before)
        raise
    return f"updated to {release}"


def _merge(clone: Clone, before: str, release: str) -> None:
    """Raises NotUpdated, with all files as they were."""
    own = [clone.project / path for path in _changed(clone, before, release, "A")]
    new = [path for path in own if not os.path.lexists(path)]
    try:
        clone.git("merge", "--quiet", "--ff-only", release)
    except KeyboardInterrupt:
        if clone.git("rev-parse", "HEAD") == before:
            _remove_what_was_merged(clone, before, release, new)
        raise
    except NotUpdated as error:
        if REFUSED in str(error):
            raise
        _remove_what_was_merged(clone, before, release, new)
        raise NotUpdated(f"{error}: free some disk space, then run this again") from error


def _remove_what_was_merged(clone: Clone, before: str, release: str, new: Iterable[Path]) -> None:
    """A merge that breaks off leaves what it has written, and says that nothing was merged.

    Raises NotUpdated with what to do by hand.
    """
    try:
        for path in new:
            path.unlink(missing_ok=True)
        clone.git("checkout", "--quiet", before, "--", *_changed(clone, before, release, "a"))
    except (NotUpdated, OSError) as error:
        remedy = "free some disk space, then git reset --hard"
        raise NotUpdated(f"{error}; files of both versions are there: {remedy}") from error


def _changed(clone: Clone, before: str, release: str, which: str) -> list[str]:
    """Paths that differ; `which` is as of git's --diff-filter: A is added, a is any other."""
    names = ("diff", "--name-only", "-z", "--no-renames", f"--diff-filter={which}")
    return [path for path in clone.git(*names, before, release).split("\0") if path]


def _insist_on_working(clone: Clone, release: str, known: set[str]) -> None:
    """Raises NotUpdated where the new version can't be used; `known` faults are not its own."""
    if not clone.set_up():
        raise NotUpdated(f"{release} was taken back, since what it needs could not be installed")
    if new := clone.faults() - known:
        told = ", ".join(sorted(new))
        raise TakenBack(f"{release} was taken back, since its check fails: {told}")


def _go_back(clone: Clone, before: str) -> None:
    """Raises NotUpdated where not even that can be done."""
    if _reset(clone, before) and not clone.set_up():
        print(MEND, file=sys.stderr)


def _reset(clone: Clone, before: str) -> bool:
    """Whether the clone was elsewhere. Raises NotUpdated with what to do by hand."""
    if clone.git("rev-parse", "HEAD") == before:
        return False
    try:
        clone.git("reset", "--quiet", "--keep", before)
    except NotUpdated as error:
        by_hand = f"git reset --keep {before[:12]}"
        raise NotUpdated(f"{error}; the clone could not go back: {by_hand}, then {MEND}") from error
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--home", type=Path, help="default: the project's folder")
    parser.add_argument("--look", action="store_true", help="fetch, and change nothing else")
    options = parser.parse_args()
    home: Path = options.home or options.project
    clone = Clone(options.project, options.runtime, home.resolve(), Programs())
    try:
        print(look(clone) if options.look else update(clone))
    except NotUpdated as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"stopped; {MEND}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
