"""What the horde says of this worker, and what this worker offers it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

from worker.command_line import as_typed
from worker.config.keys import BridgeConfig
from worker.errors import DocumentMissing, HordeError
from worker.models.introduction import RULE
from worker.models.inventory import ModelsFolder
from worker.models.keeper import ModelOffering
from worker.models.offer import find_capabilities, introduce
from worker.models.opening import Models
from worker.models.sites import ModelQueue, read_queues
from worker.service.assembly import make_client
from worker.service.releases import news
from worker.service.updates import Updates, way_to_take
from worker.version import VERSION

KEPT_SECONDS = 60.0  # between two questions to the horde, however many browsers look


class HordesSide:
    """Any thread may use it. Asks with a client of its own, beside the one that serves."""

    def __init__(self, config: BridgeConfig, home: Path, offering: ModelOffering, updates: Updates):
        self._config, self._home, self._offering = config, home, offering
        self._updates = updates
        self._asking = threading.Lock()
        self._told: dict[str, Any] = {}
        self._asked_at = -KEPT_SECONDS

    def shown(self, served: Sequence[str]) -> dict[str, Any]:
        """As JSON, for the models that are served; a horde that does not answer is a line in
        `problem`, and in `queue_problem`."""
        with self._asking:
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                self._told = {**self._record(), **self._offer(), **self._queues(served)}
                self._asked_at = time.monotonic()
            return self._told

    def _record(self) -> dict[str, Any]:
        with make_client(self._config) as client:
            try:
                account = client.whoami()
                record = client.worker_by_name(self._config.dreamer_name, account)
            except HordeError as error:
                return {"account": None, "worker": None, "problem": str(error)}
        return {
            "account": {
                "name": account.username,
                "kudos": account.kudos,
                "is_trusted": account.trusted,
            },
            "worker": None
            if record is None
            else {
                "name": unescape(record.name),
                "is_online": record.online,
                "in_maintenance": record.maintenance_mode,
                "is_trusted": record.trusted,
                "requests": record.requests_fulfilled,
                "uncompleted": record.uncompleted_jobs,
                "uptime_seconds": record.uptime,
                "kudos": record.kudos_rewards,
                "performance": record.performance,
                "info": unescape(record.info or ""),
            },
            "problem": "",
        }

    def _release(self) -> dict[str, Any] | None:
        """A newer one of this program, as far as anybody was asked."""
        folder = ModelsFolder.of(self._config, self._home)
        try:
            newer = news(self._config, folder.documents)
        except DocumentMissing:
            return None
        if newer is None:
            return None
        return {
            **asdict(newer),
            "command": as_typed(way_to_take()),
            "ours": VERSION,
            "can_take": self._updates.is_possible,
        }

    def _queues(self, served: Sequence[str]) -> dict[str, Any]:
        """What waits for each of those models; the horde leaves out those that nobody asks for."""
        folder = ModelsFolder.of(self._config, self._home)
        try:
            found = read_queues(folder.documents, self._config.horde_url)
        except DocumentMissing as error:
            return {"queues": [], "queue_problem": str(error)}
        queues = [found.get(name, ModelQueue(name=name)) for name in served]
        rows = [
            {
                "name": queue.name,
                "images": queue.jobs,
                "threads": queue.count,
                "eta_seconds": queue.eta,
            }
            for queue in queues
        ]
        return {"queues": rows, "queue_problem": ""}

    def _offer(self) -> dict[str, Any]:
        models = Models(self._offering.served, ())
        config = self._config.now
        how = introduce(config, self._home, models)
        kinds = find_capabilities(config, self._home, models)
        return {
            "agent": how.bridge_agent,
            "share_percent": round(100 * how.share),
            "rule": RULE,
            "lost": how.lost,
            "remedy": how.remedy,
            "kinds": [
                {"flag": kind.flag, "is_offered": kind.is_offered, "missing": kind.missing}
                for kind in kinds
            ],
            "release": self._release(),
            "max_power": config.max_power,
            "max_batch": config.max_batch,
            "horde_url": self._config.horde_url,
        }
