"""What the horde says of this worker, and what this worker offers it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from worker.config.keys import BridgeConfig
from worker.errors import HordeError
from worker.models.introduction import RULE
from worker.models.offer import find_capabilities, introduce
from worker.models.opening import Models
from worker.service.assembly import make_client

KEPT_SECONDS = 60.0  # between two questions to the horde, however many browsers look


class HordesSide:
    """Any thread may use it. Asks with a client of its own, beside the one that serves."""

    def __init__(self, config: BridgeConfig, home: Path, models: Models):
        self._config, self._home, self._models = config, home, models
        self._asking = threading.Lock()
        self._told: dict[str, Any] = {}
        self._asked_at = -KEPT_SECONDS

    def shown(self) -> dict[str, Any]:
        """As JSON; a horde that does not answer is a line in `problem`."""
        with self._asking:
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                self._told = {**self._record(), **self._offer()}
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
                "name": record.name,
                "is_online": record.online,
                "in_maintenance": record.maintenance_mode,
                "is_trusted": record.trusted,
                "requests": record.requests_fulfilled,
                "uncompleted": record.uncompleted_jobs,
                "kudos": record.kudos_rewards,
                "performance": record.performance,
                "info": record.info,
            },
            "problem": "",
        }

    def _offer(self) -> dict[str, Any]:
        how = introduce(self._config, self._home, self._models)
        kinds = find_capabilities(self._config, self._home, self._models)
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
            "max_power": self._config.max_power,
            "max_batch": self._config.max_batch,
            "horde_url": self._config.horde_url,
        }
