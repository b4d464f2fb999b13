"""The keys of bridgeData.yaml about the machine: its memory, folders, and when it is in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StrictInt

from worker.config.served_keys import ServedKeys
from worker.config.values import (
    AUTO,
    CardReserve,
    FastWords,
    Hours,
    MemoryReserve,
    OwnerPath,
    ProgramName,
    Reserve,
    YesNo,
    expects,
    seconds,
    whole,
)

FOLDER = "the path of a folder"


class MachineKeys(ServedKeys):
    """What the worker may take of the machine, and when."""

    vram_to_leave_free: CardReserve = MemoryReserve.parse_cards(AUTO)
    """Memory of the graphics card that is left to other programs. auto: a tenth, and 700 MiB at
    most."""
    fast: FastWords = ()
    """Faster ways, most of which change pictures a little (docs/benchmarks.md tells of each). What
    does not work on this machine is left out; `check` says why."""
    ram_to_leave_free: Reserve = MemoryReserve(percent=10)
    """Memory of the machine (RAM) that is left to other programs."""
    cache_home: Annotated[OwnerPath, expects(FOLDER)] = Path(".")
    """The folder that holds `models`, or that folder itself; relative to the home folder."""
    comfyui_path: Annotated[OwnerPath | None, expects(FOLDER)] = None
    """A ComfyUI of your own, 0.3.75 or 0.33.0, in place of the one set up for you."""
    preload_timeout: Annotated[StrictInt, seconds(15, 3600)] = 120
    """Seconds that reading a model and the prompts may take before the engine is restarted."""
    inference_step_timeout: Annotated[StrictInt, seconds(5, 600)] = 60
    """Seconds that one sampler step may take before the engine is restarted."""
    process_timeout: Annotated[StrictInt, seconds(30, 3600)] = 600
    """Seconds that a whole batch may take before the engine is restarted."""
    stop_timeout: Annotated[StrictInt, seconds(5, 3600)] = 60
    """Seconds that jobs in hand get when the worker is told to stop. What would take longer goes
    back to the horde, which asks another worker."""
    serve_hours: Annotated[
        tuple[Hours, ...],
        expects('a list of hours such as "mon-fri 22:00-07:00", "sat-sun" or "08:00-24:00"'),
    ] = ()
    """When the worker serves, in local time; outside of it the card is free. Not set: always."""
    pause_for: Annotated[
        tuple[ProgramName, ...],
        expects('a list of names of programs such as "steam*", of 1 to 100 characters'),
    ] = ()
    """While one of these programs runs, the card is free; * stands for any characters."""
    others_on_card: YesNo = False
    """true: while another program computes on the card, the worker leaves the card alone. Games
    do not compute in this sense: name them in pause_for."""
    user_active: Annotated[StrictInt, whole(0, 1440, " of minutes")] = 0
    """The card is free until nobody has typed or moved the mouse for so many minutes. 0: whoever
    uses this machine does not matter."""
    on_battery: YesNo = False
    """true: while this machine runs on its battery, the card is free."""
    max_card_temperature: Annotated[
        StrictInt | None, expects("a whole number of °C from 40 to 110", ge=40, le=110)
    ] = None
    """A card that is as hot as this gets no new job until it is 5 °C cooler."""
    card_power_limit: Annotated[
        StrictInt | None, expects("a whole number of watts from 10 to 2000", ge=10, le=2000)
    ] = None
    """The watts that each card may take while the worker runs, where the driver allows that (most
    drivers: to root alone)."""

    def models_folder(self, home: Path) -> Path:
        """The folder of model files. `home` is what a relative cache_home starts from."""
        cache = home / self.cache_home
        return cache if cache.name == "models" else cache / "models"
