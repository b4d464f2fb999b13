"""Takes the newest release of Dreamer into a clone, or leaves the clone as it was.

Only forward, by git, and only where nothing of the clone was changed and no worker runs with it.
What the release needs is installed, then its own `check` is asked: where that finds a fault that
the version before did not have, the clone goes back. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TAG = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
NOT_RUNNING = 1  # the exit code of `status`
FAILED = "FAILED"  # how a line of `check` begins, and its name after it
NAME_COLUMNS = slice(8, 31)


class NotUpdated(Exception):
    """Why not, with the remedy. The clone is as it was."""


@dataclass(frozen=True, slots=True)
class Clone:
    project: Path
    runtime: Path
    home: Path

    def git(self, *arguments: str) -> str:
        """What it says. Raises NotUpdated with its last line."""
        try:
            done = subprocess.run(
                ["git", "-C", str(self.project), *arguments],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            )
        except OSError as error:
            raise NotUpdated("git is not installed: install it, then run this again") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise NotUpdated(f"git {arguments[0]}: {lines[-1]}")
        return done.stdout.strip()

    def worker(self, command: str) -> subprocess.CompletedProcess[str]:
        """One of this clone's worker."""
        python = str(self.runtime / ".venv" / "bin" / "python")
        return subprocess.run(
            [python, "-P", "-m", "worker", "--home", str(self.home), command],
            cwd=self.project,
            env={
                **os.environ,
                "PYTHONPATH": str(self.project),
                "DREAMER_RUNTIME": str(self.runtime),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def set_up(self) -> bool:
        """With the program of the version that is there now."""
        script = self.project / "update-runtime.sh"
        environment = {**os.environ, "DREAMER_RUNTIME": str(self.runtime)}
        return subprocess.run([script, "--quiet"], env=environment, check=False).returncode == 0

    def faults(self) -> set[str]:
        """The names of what `check` says has failed; its own crash is one, too."""
        done = self.worker("check")
        lines = done.stdout.splitlines()
        names = {line[NAME_COLUMNS].strip() for line in lines if line.startswith(FAILED)}
        return names if names or not done.returncode else {"check itself"}


def newest_release(clone: Clone) -> str:
    """The tag of the newest one that the branch's upstream has; "" where there is none."""
    tags = clone.git("tag", "--merged", "@{upstream}").splitlines()
    releases = [tag for tag in tags if TAG.fullmatch(tag)]
    return max(releases, key=lambda tag: tuple(map(int, tag[1:].split("."))), default="")


def insist_on_plain_clone(clone: Clone) -> None:
    """Raises NotUpdated where git could lose something, or a worker would change under way."""
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
    insist_on_no_changes(clone)
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


def update(clone: Clone) -> str:
    """What was done, for people. Raises NotUpdated."""
    insist_on_plain_clone(clone)
    try:
        clone.git("rev-parse", "@{upstream}")
    except NotUpdated as error:
        raise NotUpdated("this clone is on no branch that is followed: git switch main") from error
    clone.git("fetch", "--quiet", "--tags")
    before, release = clone.git("rev-parse", "HEAD"), newest_release(clone)
    if not release or not clone.git("rev-list", f"HEAD..{release}"):
        return "there is no newer release"
    if clone.git("merge-base", "HEAD", release) != before:
        raise NotUpdated(f"this clone has commits that {release} lacks: git rebase {release}")
    faults = clone.faults() if (clone.runtime / ".venv").is_dir() else set[str]()
    insist_on_no_changes(clone)  # the check took a while
    print(f"taking {release}", flush=True)
    try:
        clone.git("merge", "--quiet", "--ff-only", release)
    except NotUpdated:  # a full disk, for example, in the middle of it
        clone.git("reset", "--quiet", "--merge", before)  # keeps what was edited meanwhile
        raise
    problem = _problem(clone, faults)
    if not problem:
        return f"updated to {release}"
    clone.git("reset", "--quiet", "--keep", before)
    back = "" if clone.set_up() else "; ./update-runtime.sh mends what is installed"
    raise NotUpdated(f"{release} was taken back, since {problem}{back}")


def _problem(clone: Clone, known: set[str]) -> str:
    """What keeps the new version from being used; "" for nothing."""
    if not clone.set_up():
        return "what it needs could not be installed"
    new = clone.faults() - known
    return f"its check fails: {', '.join(sorted(new))}" if new else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--home", type=Path, help="default: the project's folder")
    options = parser.parse_args()
    home: Path = options.home or options.project
    clone = Clone(options.project, options.runtime, home.resolve())
    try:
        print(update(clone))
    except NotUpdated as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; ./update-runtime.sh mends what is installed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
