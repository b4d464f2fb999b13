"""The form of a worker that has no configuration yet: it asks what `setup` asks, and writes it.

Whoever may open the page later may open this one: the same guard is before it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from hordelib.errors import HordelibError
from hordelib.safety.csam import PACKAGE
from worker.command_line import as_typed
from worker.config.config import config_of
from worker.config.environment import read_environment
from worker.config.keys import BridgeConfig
from worker.errors import ConfigError, UsageError, WorkerError
from worker.page.access import hashed, is_hash
from worker.page.app import lines_of, told_by
from worker.page.extras import Extras
from worker.page.guard import HEADERS, Guard, json_of, refusal
from worker.page.server import PageServer
from worker.page.site import make_site
from worker.safety.policy import is_required
from worker.setup.account import HORDE, account_findings
from worker.setup.answers import (
    ENOUGH,
    PURPOSES,
    REGISTER,
    Answers,
    require_writable,
    write_settings,
)
from worker.setup.finding import Verdict
from worker.setup.proposal import power_for
from worker.setup.survey import Survey, survey, unknown_names

log = logging.getLogger(__name__)

LONGEST = 1000  # characters of an answer
MOST_MODELS = 300
Text = Annotated[StrictStr, Field(max_length=LONGEST)]


def is_to_be_set_up(config_file: Path) -> bool:
    """Whether nobody has said yet whose worker this is, in the file or the environment."""
    return not config_file.exists() and "api_key" not in read_environment(os.environ).variables


def set_up_by_page(config_file: Path, home: Path) -> None:
    """Serve the form until it is filled in and `config_file` is written.

    The environment's variables say where, and who may come in. Raises ConfigError for one that
    can't be used, UsageError where there is no page, and OSError where nothing could be written.
    """
    config = config_of(ENOUGH)
    require_writable(config_file.parent)
    first = _FirstPage(config, config_file, home, read_environment(os.environ).variables)
    server = PageServer(config.page, first.application, lambda: _hash_of(config))
    advice = "run ./horde-bridge.sh setup, which asks and writes it"
    if not server.start():
        raise UsageError(f"there is no {config_file}: {advice}")
    try:
        print(
            f"There is no {config_file} yet. Open {server.shown_address} in a browser to set this"
            f" worker up;\nor press Ctrl-C, and {as_typed(advice)}.",
            flush=True,
        )
        first.written.wait()
    finally:
        server.close()
    print(f"{config_file} was written; the worker starts.", flush=True)


def _hash_of(config: BridgeConfig) -> str:
    password = config.page_password.get_secret_value() if config.page_password else ""
    return password if not password or is_hash(password) else hashed(password)


class _Form(BaseModel):
    """What the browser sends. Key and name are empty where the environment sets them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Text
    dreamer_name: Text
    purpose: Text
    nsfw: StrictBool
    models: Annotated[tuple[Text, ...], Field(max_length=MOST_MODELS)]


class _FirstPage:
    def __init__(
        self, config: BridgeConfig, config_file: Path, home: Path, variables: Mapping[str, str]
    ):
        self._config, self._config_file, self._home = config, config_file, home
        self._variables = variables
        self._extras = Extras(config, home)
        self._looking = threading.Lock()
        self._found: Survey | None = None
        self.written = threading.Event()

    def application(self, guard: Guard) -> web.Application:
        app = make_site(guard, "setup.html", ("setup.js", "views.js"))
        app.add_routes(
            [
                web.get("/api/setup", self.asked),
                web.get("/api/setup/machine", self.machine),
                web.post("/api/setup", self.save),
                web.get("/api/setup/extras", self.extras),
                web.post("/api/setup/extras", self.install),
            ]
        )
        return app

    async def asked(self, _request: web.Request) -> web.Response:
        """What there is to answer; at once."""
        purposes = [{"name": name, "words": each.words} for name, each in PURPOSES.items()]
        asks = [key for key in ("api_key", "dreamer_name") if key not in self._variables]
        return web.json_response({"register": REGISTER, "asks": asks, "purposes": purposes})

    async def machine(self, _request: web.Request) -> web.Response:
        """What was found, and the models; takes some seconds the first time."""
        return await told_by(self._machine)

    async def extras(self, _request: web.Request) -> web.Response:
        """What this worker could not serve without."""
        return await told_by(self._missing)

    async def install(self, request: web.Request) -> web.Response:
        name = str((await json_of(request)).get("name"))
        return await told_by(lambda: self._extras.install(name))

    async def save(self, request: web.Request) -> web.StreamResponse:
        try:
            form = _Form.model_validate(await json_of(request))
        except ValidationError:
            return refusal(400, "expected texts for key and name, and a list of models")
        try:
            notes = await asyncio.to_thread(self._save, form)
        except (WorkerError, HordelibError, OSError) as error:
            return refusal(400, *lines_of(error))
        answer = web.json_response({"notes": notes}, headers=HEADERS)
        try:
            await answer.prepare(request)
            await answer.write_eof()
        finally:  # only now, or the server would end before the answer; also for a closed page
            self.written.set()
        return answer

    def _look(self) -> Survey:
        with self._looking:
            found = self._found or survey(self._home, {})
            if found.models:  # else the network may be there the next time
                self._found = found
            return found

    def _machine(self) -> dict[str, Any]:
        found = self._look()
        return {
            "lines": found.lines,
            "notes": found.notes,
            "free_bytes": found.free_bytes,
            "bytes_per_second": found.bytes_per_second,
            "models": [asdict(row) for row in found.models],
        }

    def _missing(self) -> dict[str, Any]:
        needed = [PACKAGE] if is_required(self._config) else []
        extras = [each for each in self._extras.shown() if each["name"] in needed]
        return {"extras": extras, "installing": self._extras.progress}

    def _save(self, form: _Form) -> list[str]:
        """Lines for the owner. Raises ConfigError with a line for each problem; nothing is written
        then."""
        found = self._look()
        power = power_for([row for row in found.models if row.name in form.models])
        problems = [] if form.models else ["models: choose one at least"]
        problems += [
            f"{each['name']} is needed, and not installed yet: install it first"
            for each in self._missing()["extras"]
            if not each["is_here"] and not each["by_hand"]
        ]
        if form.purpose not in PURPOSES:
            problems.append(f"purpose: expected one of {', '.join(PURPOSES)}")
        if unknown := unknown_names(found, form.models):
            problems.append(f"models: {unknown}")
        if problems:
            raise ConfigError(tuple(problems))
        answers = Answers(
            form.api_key.strip(),
            form.dreamer_name.strip(),
            form.purpose,
            form.nsfw,
            form.models,
            power,
            {},
        )
        notes: list[str] = []
        for finding in account_findings(config_of(_known(answers))):
            told = f"{finding.name}: {finding.detail}"
            if finding.verdict is Verdict.failed and finding.name != HORDE:
                raise ConfigError((as_typed(f"{told}; {finding.remedy}"),))
            if finding.verdict is Verdict.failed:
                notes.append(f"{told}, so key and name were not checked")
            elif finding.verdict is Verdict.warning:
                notes.append(as_typed(f"{told}; {finding.remedy}"))
        write_settings(self._config_file, answers.settings())
        log.info("set-up: %s was written", self._config_file)
        return notes


def _known(answers: Answers) -> dict[str, object]:
    return {key: value for key, value in answers.settings().items() if value is not None}
