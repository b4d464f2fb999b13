"""The `setup` command: asks what a new worker needs to know, proposes models, writes the file.

Every answer has an option, so that a script needs nobody to ask.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from worker.cli.exit_codes import ExitCode
from worker.command_line import LAUNCHER, as_typed
from worker.config.config import config_of
from worker.config.document import read_document
from worker.config.editing import Value
from worker.config.environment import read_environment
from worker.config.old_keys import PLACEHOLDERS
from worker.errors import ConfigError, JudgeUnusable, NotAllowed, UsageError
from worker.models.files.on_disk import size_text
from worker.safety.policy import unfound
from worker.service.terminal import make_console
from worker.setup.account import API_KEY, HORDE, WORKER_NAME, account_findings
from worker.setup.answers import (
    ENOUGH,
    PURPOSES,
    REGISTER,
    Answers,
    problem_with,
    require_writable,
    write_settings,
)
from worker.setup.finding import Finding, Verdict
from worker.setup.proposal import ProposedModel, power_for
from worker.setup.survey import Survey, survey, unknown_names

MOST_SHOWN = 15  # models in the table
YES, NO = ("y", "yes"), ("n", "no")


def run_setup(config_file: Path, options: argparse.Namespace) -> int:
    """Ask what the options leave open, and write `config_file`.

    Raises UsageError where nobody can be asked, ConfigError, NotAllowed and OSError: nothing is
    written then.
    """
    require_writable(config_file.parent)
    console = make_console(columns=120, soft_wrap=True)
    dialogue = _Dialogue(console, config_file, options)
    dialogue.begin()
    key, name = dialogue.account()
    purpose, nsfw = dialogue.purpose(), dialogue.nsfw()
    found = dialogue.look()
    models = dialogue.models(found)
    power = power_for([row for row in found.models if row.name in models])
    answers = Answers(key, name, purpose, nsfw, models, power, dialogue.place)
    backup = write_settings(config_file, answers.settings())
    console.print(f"{config_file} was written; it is readable for you alone.")
    if backup:
        console.print(f"{backup.name} beside it is what it was before.")
    for line in _next_steps(config_file, options.home):
        console.print(as_typed(line))
    return ExitCode.OK


def _next_steps(config_file: Path, home: Path) -> list[str]:
    steps = [f"{LAUNCHER} check: sees whether all is there", f"{LAUNCHER} run: serves the horde"]
    try:
        lack = unfound(config_of(read_document(config_file).settings), home)
    except JudgeUnusable as error:
        lack = str(error)
    return ["Next:", *([f"  {lack}"] if lack else []), *(f"  {step}" for step in steps)]


@dataclass
class _Dialogue:
    console: Console
    config_file: Path
    options: argparse.Namespace

    def begin(self) -> None:
        """Say how it goes. Raises UsageError where the file is not to be changed, or answers are
        missing that nobody can be asked for."""
        exists = self.config_file.exists()
        if exists and not self.options.change and not (self._is_asking and self._may_change()):
            told = f"{self.config_file} is there already, and stays as it is"
            raise UsageError(f"setup: {told}; add --change to change it")
        if self._is_asking:
            self._say(
                "Press Enter to take what stands in [brackets]. Ctrl-C ends this; nothing is",
                "written before the last question is answered.",
            )
            return
        missing = self._missing()
        if missing:
            told = "nobody can be asked here, because this is no terminal"
            raise UsageError(f"setup: {told}; add {', '.join(missing)} (setup --help)")

    def _missing(self) -> list[str]:
        """The options without which nothing can be written."""
        options, given = self.options, self._given()
        needed = {
            "--api-key-file": given["api_key"] or options.api_key or options.api_key_file,
            "--name": given["dreamer_name"] or options.name,
        }  # a file that is there answers the rest
        if not options.yes and not self.config_file.exists():
            chosen = {"--for": options.purpose, "--nsfw": options.nsfw, "--models": options.models}
            needed |= chosen
        missing = [option for option, value in needed.items() if not value]
        proposed = "--for" in missing or "--nsfw" in missing or "--models" in missing
        return [*missing, *(["or --yes for what is proposed"] if proposed else [])]

    @property
    def _is_asking(self) -> bool:
        return not self.options.yes and sys.stdin.isatty() and self.console.is_terminal

    def _may_change(self) -> bool:
        self._say(
            f"{self.config_file} is there already. What you answer now goes into it; its other",
            "keys and comments stay, and a copy is kept of what it is now.",
        )
        return self._yes("Change it?", default=False)

    @property
    def _present(self) -> Mapping[str, object]:
        """What the file says that is there. Raises ConfigError where it can't be read."""
        return read_document(self.config_file).settings if self.config_file.exists() else {}

    def _given(self) -> Mapping[str, str]:
        """Key and name that the environment or the file has; "" for none."""
        settings = self._present
        found = {key: str(settings.get(key) or "") for key in ("api_key", "dreamer_name")}
        found = {key: "" if text in PLACEHOLDERS[key] else text for key, text in found.items()}
        variables = read_environment(os.environ).settings
        return found | {key: str(variables[key]) for key in found if key in variables}

    # ---- what is asked -----------------------------------------------------------------------

    def account(self) -> tuple[str, str]:
        """Key and name to write, known to the horde as far as it can be reached; "" for one that
        the environment sets. Raises NotAllowed."""
        given, options = self._given(), self.options
        key: str = self._key_of_options() or ("" if self._is_asking else given["api_key"])
        name: str = options.name or ("" if self._is_asking else given["dreamer_name"])
        while True:
            key = key or self._key(given["api_key"])
            name = name or self._name(given["dreamer_name"])
            refused = self._refused({**self.place, "api_key": key, "dreamer_name": name})
            if refused is None:
                variables = read_environment(os.environ).variables
                return (
                    "" if "api_key" in variables else key,
                    "" if "dreamer_name" in variables else name,
                )
            if not self._is_asking:
                rc, _, told = refused.detail.partition(": ")
                raise NotAllowed(rc, told, refused.remedy)
            key, name = ("", name) if refused.name == API_KEY else (key, "")

    def _key_of_options(self) -> str:
        """Raises OSError and UsageError for a file that has none."""
        file: Path | None = self.options.api_key_file
        if file is None:
            return self.options.api_key or ""
        try:
            key = file.read_text("utf-8").strip()
        except ValueError:
            key = ""
        if not key:
            raise UsageError(f"--api-key-file: {file} holds no key")
        return key

    def _refused(self, settings: Mapping[str, object]) -> Finding | None:
        """What the horde has against it. Raises ConfigError."""
        for finding in account_findings(config_of({**ENOUGH, **settings})):
            is_refused = finding.verdict is Verdict.failed and finding.name != HORDE
            if self._is_asking or not is_refused:
                self._tell(finding)
            if is_refused:
                return finding
        return None

    def _tell(self, finding: Finding) -> None:
        if finding.name in (API_KEY, WORKER_NAME):
            told = f"{finding.name}: {finding.detail}"
            self.console.print(told, style=_STYLES[finding.verdict])
            if finding.remedy:
                self.console.print(as_typed(f"  remedy: {finding.remedy}"))
        elif finding.verdict is Verdict.failed:
            told = "so key and name are not checked now"
            self.console.print(f"The horde can't be asked ({finding.detail}), {told}.")

    def _key(self, present: str) -> str:
        self._say("", f"The key of your AI Horde account ({REGISTER} gives one).")
        shown = " [as it is now]" if present else ""
        while True:
            ask = f"API key{shown}, not shown while you type or paste it: "
            key = self._read(ask, secret=True) or present
            if key and self._fits("api_key", key):
                return key

    def _name(self, present: str) -> str:
        self._say(
            "", "A name for this worker, which nobody else in the horde has. Everybody sees it."
        )
        while True:
            name = self._read(f"Name{f' [{present}]' if present else ''}: ") or present
            if name and self._fits("dreamer_name", name):
                return name

    def purpose(self) -> str:
        chosen = self.options.purpose
        if chosen or not self._is_asking:
            return chosen or ""
        names = list(PURPOSES)
        self._say("", "What is this machine for?")
        for number, name in enumerate(names, 1):
            self._say(f"  {number}  {PURPOSES[name].words}")
        while True:
            answer = self._read("Number [1]: ") or "1"
            if answer in names:
                return answer
            if answer.isdecimal() and 0 < int(answer) <= len(names):
                return names[int(answer) - 1]
            self._say(f"expected a number from 1 to {len(names)}")

    def nsfw(self) -> bool | None:
        if self.options.nsfw or not self._is_asking:
            return self.options.nsfw == "yes" if self.options.nsfw else None
        self._say("")
        return self._yes("Take requests that are marked as not safe for work, too?", default=True)

    def look(self) -> Survey:
        self._say("", "Looking at this machine and at the horde's models …")
        found = survey(self.options.home, self.place, measures_speed=not self.options.no_speed_test)
        for name, figures in found.lines:
            self.console.print(f"  {name:9}{figures}")
        for note in found.notes:
            self.console.print(f"  {note}")
        return found

    def models(self, found: Survey) -> tuple[str, ...]:
        """Names, or groups; nothing where the file's stay. Raises UsageError where there is nothing
        to propose."""
        proposed = tuple(row.name for row in found.models if row.is_proposed)
        if self.options.models:
            names = tuple(self.options.models)
            if problem := problem_with("models_to_load", list(names)):
                raise ConfigError((problem,))
            return names
        if not self._is_asking and self._present.get("models_to_load"):
            return ()
        if not self._is_asking:
            if not proposed:
                raise UsageError("setup: there is no model to propose; add --models NAME")
            self.console.print(f"models: {', '.join(proposed)}")
            return proposed
        return self._chosen(found, proposed)

    def _chosen(self, found: Survey, proposed: Sequence[str]) -> tuple[str, ...]:
        shown = [row for row in found.models if not row.problem][:MOST_SHOWN]
        if shown:
            self.console.print(_table(found, shown))
            self._say(_EARNS)
        numbers = [str(n) for n, row in enumerate(shown, 1) if row.name in proposed]
        while True:
            default = f" [{', '.join(numbers)}]" if numbers else ""
            answer = self._read(f"Models, by number or name, with commas between them{default}: ")
            names = _meant(answer or ", ".join(numbers), shown)
            problem = unknown_names(found, names) if names else "expected a model"
            problem = problem or problem_with("models_to_load", names)
            if not problem:
                return tuple(names)
            self._say(problem)

    # ---- asking ------------------------------------------------------------------------------

    @property
    def place(self) -> dict[str, Value]:
        """The keys of options that are no questions."""
        options = self.options
        given = {
            "horde_url": options.horde_url,
            "model_reference": options.model_reference,
            "cache_home": options.cache_home,
        }
        there = {key: str(self._present[key]) for key in given if self._present.get(key)}
        return {**there, **{key: value for key, value in given.items() if value}}

    def _fits(self, key: str, value: str) -> bool:
        problem = problem_with(key, value)
        if problem:
            self._say(problem)
        return not problem

    def _yes(self, question: str, *, default: bool) -> bool:
        while True:
            answer = self._read(f"{question} [{'Y/n' if default else 'y/N'}] ").lower()
            if answer in (*YES, *NO, ""):
                return answer in YES or (not answer and default)

    def _read(self, question: str, *, secret: bool = False) -> str:
        """A line. Raises UsageError where there is none any more."""
        try:
            return (getpass.getpass(question) if secret else input(question)).strip()
        except EOFError:
            print(file=sys.stderr)
            raise UsageError("setup: the input ended, and nothing was written") from None

    def _say(self, *lines: str) -> None:
        if self._is_asking:
            for line in lines:
                self.console.print(line)


_STYLES = {
    Verdict.ok: "green",
    Verdict.failed: "bold red",
    Verdict.warning: "yellow",
    Verdict.skipped: "dim",
}
_EARNS = (
    "What a picture earns is the horde's price for one of the family's usual size. A model that\n"
    "many ask for gets jobs all day; the speed of your card decides how many kudos an hour that is."
)


def _table(found: Survey, rows: Sequence[ProposedModel]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "model", "family", "download", "a picture earns", "pictures a month"):
        is_text = heading in ("model", "family")
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for number, row in enumerate(rows, 1):
        table.add_row(
            str(number),
            row.name,
            row.family,
            _download(found, row),
            f"{row.kudos:.0f} kudos ({row.side}x{row.side}, {row.steps} steps)",
            "?" if row.pictures is None else f"{row.pictures:,}",
        )
    return table


def _download(found: Survey, row: ProposedModel) -> str:
    if row.is_here:
        return "is here"
    if not row.download_bytes:
        return "?"
    seconds = found.download_seconds(row.download_bytes)
    minutes = "" if seconds is None else f", {max(round(seconds / 60), 1)} min"
    return f"{size_text(row.download_bytes)}{minutes}"


def _meant(answer: str, shown: Sequence[ProposedModel]) -> list[str]:
    """Numbers of the table stand for its models; all else is a name or a group."""
    words = [word.strip() for word in answer.split(",") if word.strip()]
    names = [
        shown[int(word) - 1].name if word.isdecimal() and 0 < int(word) <= len(shown) else word
        for word in words
    ]
    return list(dict.fromkeys(names))
