"""What `run` does: a worker, with everything that is around its line of jobs.

The folders and files of its state, the page, what monitoring asks, notices and the card's power
are begun in this order and ended in the opposite one, whatever ends the worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from hordelib.files.whole_files import anybody_may_write
from worker.children.signals import StopSignals
from worker.cli.exit_codes import line_of
from worker.command_line import as_typed
from worker.config.config import load_config
from worker.config.document import CONFIG_FILE
from worker.config.keys import BridgeConfig
from worker.config.old_keys import in_short
from worker.devices import chosen_cards
from worker.errors import ConfigError
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.line.bridge import Bridge
from worker.loras.adapters import Adapters
from worker.models.files.on_disk import DISK_FLOOR_BYTES
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.offer import find_capabilities, introduce
from worker.models.offered import OfferedModels
from worker.models.opening import Models
from worker.notices.notifier import Notifier, seen_of
from worker.notices.posting import NOT_INSTALLED, is_installed
from worker.page.app import Watched
from worker.page.server import page_of
from worker.page.waiting_page import Ended, wait_for_start
from worker.safety.gallery import Gallery
from worker.safety.policy import unfound
from worker.service.application_view import Shown, make_display
from worker.service.assembly import (
    OURS,
    Children,
    make_adapters,
    make_bridge,
    make_intake,
    make_predictor,
)
from worker.service.card_power import limited_power
from worker.service.history import FILE as HISTORY
from worker.service.history import History
from worker.service.logs import LogWay, set_up_logging
from worker.service.machine import Machine
from worker.service.metrics import MetricsServer, make_metrics
from worker.service.orders import OF_ONE_LIFE, STARTING, Order, Orders
from worker.service.overview import Overview
from worker.service.pauses import Pauses
from worker.service.serve import serve
from worker.service.state_folder import STATE, StateFolder
from worker.service.terminal import make_console
from worker.service.updates import Updates, updates_of
from worker.service.watches import Watches, cards_of

FIRST_MODELS = "models are read or downloaded, and it serves from the first one on"
log = logging.getLogger("worker")


def run_worker(
    config: BridgeConfig,
    home: Path,
    signals: StopSignals,
    children: Children = OURS,
    *,
    way: LogWay = LogWay.auto,
    updates: Updates | None = None,
) -> None:
    """Serve as `config` says until a signal. Raises what ends it otherwise.

    Where the page may order a release, the caller has these `updates` go on after the end.
    """
    updates = updates or updates_of(config, home)
    with _Worker.begun(config, home, children, way, updates) as worker:
        models = worker.first_models()
        if worker.is_to_end:
            worker.orders.end()
        else:
            worker.serve(models, signals)


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a worker has before its first job, and while it serves."""

    config: BridgeConfig
    home: Path
    children: Children
    gallery: Gallery
    way: LogWay
    console: Console
    state: StateFolder
    orders: Orders
    metrics: MetricsServer
    notifier: Notifier
    offering: ModelOffering
    adapters: Adapters
    ledger: Ledger
    history: History
    updates: Updates

    @classmethod
    @contextmanager
    def begun(
        cls,
        config: BridgeConfig,
        home: Path,
        children: Children,
        way: LogWay,
        updates: Updates,
    ) -> Generator[_Worker]:
        """While this lasts, its owner and his programs can watch it, before the first models are
        there too. An error that ends it is written about to where `notify` says."""
        with ExitStack() as stack:
            state = stack.enter_context(closing(StateFolder.open(home / STATE)))
            notifier = stack.enter_context(Notifier(config, state.path).telling(line_of))
            orders = Orders(state.path)
            orders.begin()  # first of all: what the folder still says is an earlier life's
            console = make_console()
            set_up_logging(console, home / "logs" / "dreamer.log", way=way)
            if state.trouble:
                log.error("%s; until then it takes no orders", state.trouble)
            metrics = make_metrics(config, orders)
            stack.enter_context(metrics.served())
            unfound(config, home)  # raises where it has to, before models are downloaded in vain
            chosen_cards(config.card_names)  # so does this
            offering = ModelOffering(take_inventory(ModelsFolder.of(config, home)))
            gallery = Gallery(lambda: config.now.show_pictures)
            worker = cls(
                config,
                home,
                replace(children, gallery=gallery),
                gallery,
                way,
                console,
                state,
                orders,
                metrics,
                notifier,
                offering,
                make_adapters(config, config.models_folder(home)),
                stack.enter_context(closing(Ledger(state.path / LEDGER))),
                stack.enter_context(closing(History(state.path / HISTORY))),
                updates,
            )
            stack.enter_context(page_of(worker.watched))
            yield worker

    @property
    def watched(self) -> Watched:
        """What the page shows of it."""
        return Watched(
            self.config,
            self.home / CONFIG_FILE,
            self.home,
            self.offering,
            self.adapters,
            self.orders,
            self.history,
            self.gallery,
            self.updates,
        )

    @property
    def is_to_end(self) -> bool:
        return self.orders.is_given(*OF_ONE_LIFE)

    def first_models(self) -> Models:
        """Those that it begins with; it waits for one where there is none."""
        if self.offering.is_awaited:
            with suppress(OSError):
                self.orders.answer(Overview(doing=STARTING, why=FIRST_MODELS))
        return self.offering.first_models(lambda: not self.is_to_end)

    def serve(self, models: Models, signals: StopSignals) -> None:
        config, home = self.config, self.home
        _warn(config, home, models)
        intake = make_intake(config, home, models, adapters=self.adapters)
        predictor = make_predictor(self.state.path, config.card_names)
        journal = Journal(self.ledger, self.children.most_drops, predictor)
        bridge = make_bridge(config, home, models, journal, intake=intake, children=self.children)
        if config.makes_pictures:
            names = ", ".join(models.served) or "no pictures"
            log.info("offering %s as %r", names, config.dreamer_name)
        with self._beside(intake.offered, journal) as (pauses, limit_power):
            serve(
                bridge,
                make_display(
                    self.console,
                    self._shown(bridge, journal, pauses, signals),
                    config.stats_output_frequency,
                    self.way,
                ),
                signals=signals,
                pauses=pauses,
                look_after=(
                    self.state.keep,
                    lambda: self._note(journal),
                    self.metrics.beat,
                    limit_power,
                ),
            )

    @contextmanager
    def _beside(
        self, offered: OfferedModels, journal: Journal
    ) -> Generator[tuple[Pauses, Callable[[], None]]]:
        """What goes on while jobs are served, and the call that looks after the cards' power."""
        config = self.config
        pauses = Pauses(self.orders, Watches(config))
        seen = seen_of(config, self.home, self.orders, offered, journal)
        with (
            limited_power(
                lambda: config.now.card_power_limit, self.state.path, cards_of(config)
            ) as limit_power,
            self.offering.kept_up(offered),
            pauses.watched(),
            self.notifier.watching(seen),
        ):
            yield pauses, limit_power

    def _shown(
        self, bridge: Bridge, journal: Journal, pauses: Pauses, signals: StopSignals
    ) -> Shown:
        machine = Machine(self.config, self.home, DISK_FLOOR_BYTES)
        return Shown(journal, pauses, signals, lambda: bridge.models, machine)

    def _note(self, journal: Journal) -> None:
        self.history.note(journal.view(), journal.views_beside())


def run_lives(live: Callable[[], None], home: Path, signals: StopSignals) -> None:
    """One life of a worker after the other, as long as each has ended by the order to restart, or
    is started again on the page that has ended it."""
    live()
    while not signals.count and _is_to_live_on(home, signals):
        with signals.interrupting():  # as in the first life, until it serves
            live()


def _is_to_live_on(home: Path, signals: StopSignals) -> bool:
    orders = Orders(home / STATE)
    given = orders.given()
    if given is None or not given.stays:
        return orders.is_given(Order.restart)
    try:
        config = load_config(home / CONFIG_FILE)
    except ConfigError:  # it has no page that could be trusted, and its end was ordered
        return False
    ended = wait_for_start(config, home, signals)
    return ended is Ended.go_on or orders.is_given(Order.restart)


def _warn(config: BridgeConfig, home: Path, models: Models) -> None:
    for line in warnings_of(config, home, models):
        log.warning(as_typed(line))
    if kinds := unserved(config, home, models):
        log.info("not offered: %s (check says why)", ", ".join(kinds))


def warnings_of(config: BridgeConfig, home: Path, models: Models) -> list[str]:
    """What the owner should know before it starts. Raises JudgeUnusable as `safety` says."""
    lacking = [
        f"{flag}: true, and not offered; check says what is missing"
        for flag in unserved(config, home, models)
        if flag in config.model_fields_set
    ]
    open_to_all = [
        f"{folder}: anybody on this machine can change what lies there: chmod o-w {folder}"
        for folder in (home.resolve(), config.models_folder(home))
        if anybody_may_write(folder)
    ]
    how = introduce(config, home, models)
    lost = f"{how.lost_in_short}; check tells more. Remedy: {how.remedy}" if how.lost else ""
    lines = (
        *in_short(config.notes),
        *models.problems,
        *lacking,
        lost,
        *open_to_all,
        f"notify has no effect: {NOT_INSTALLED}" if config.notify and not is_installed() else "",
        unfound(config, home),
    )
    return [line for line in lines if line]


def unserved(config: BridgeConfig, home: Path, models: Models) -> list[str]:
    """The keys of the kinds of jobs that can't be offered, though nobody has refused them."""
    if not config.makes_pictures:
        return []
    return [each.flag for each in find_capabilities(config, home, models) if each.missing]
