"""How the horde is told what this worker is, and which share of the rewards that brings.

The horde grants kinds of jobs by the name and the version of a worker: each version stands for all
that is handed out since then and before (a "gate"). The newest version of a name that it knows
earns the whole reward of an image, an older one less, and any other name the least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hordelib.files.model import Model
from hordelib.job.families import FLUX, FLUX_DEV, SDXL, Family, Part
from worker.config.values import PROJECT_URL
from worker.models.capabilities import Installed, lacks_qr, lacks_sdxl_control

REGEN, CLASSIC = "AI Horde Worker reGen", "AI Horde Worker"
# The newest versions that the horde's server knows of the names that it pays in full.
NEWEST_VERSIONS: Mapping[str, int] = MappingProxyType({REGEN: 18, CLASSIC: 24})
WHOLE, OLDER, UNKNOWN = 1.0, 0.9, 0.75  # shares of an image's reward
RULE = (
    "the newest version of a name that the horde knows earns 100 % of an image's reward, an older"
    " one 90 %, any other name 75 %"
)

NEWEST_AGENT = f"{REGEN}:{NEWEST_VERSIONS[REGEN]}.0.0:{PROJECT_URL}"
# From before the QR code workflow, also with the full reward.
AGENT_WITHOUT_QR = f"{CLASSIC}:24.1.0:{PROJECT_URL}"
_NEED_GATE_9 = frozenset({FLUX, FLUX_DEV})  # nothing at all comes to an older worker that has one


@dataclass(frozen=True, slots=True)
class Introduction:
    """How the horde is told what this worker is. `lost` is what it is not sent for that reason."""

    bridge_agent: str
    lost: str = ""
    remedy: str = ""

    @property
    def lost_in_short(self) -> str:
        return self.lost.partition(":")[0]

    @property
    def share(self) -> float:
        """Of each image's reward, on a server that knows the newest versions."""
        name, _, rest = self.bridge_agent.partition(":")
        if name not in NEWEST_VERSIONS:
            return UNKNOWN
        major = rest.partition(":")[0].partition(".")[0]
        return WHOLE if int(major) >= NEWEST_VERSIONS[name] else OLDER


def introduction(installed: Installed, models: Iterable[Model]) -> Introduction:
    """As the newest worker all of whose jobs can be made."""
    families = {model.family for model in models}
    if not _could_get_qr(installed, families):
        return Introduction(NEWEST_AGENT)
    if families & _NEED_GATE_9:
        return Introduction(NEWEST_AGENT, _FAULTS_QR, _QR_REMEDY)
    return Introduction(AGENT_WITHOUT_QR, _LOST_WITHOUT_QR, _QR_REMEDY)


def _could_get_qr(installed: Installed, families: set[Family]) -> bool:
    """Whether QR code jobs would come that can't be made.

    The horde hands them to every worker that it thinks capable and that offers no SDXL model; only
    an older name keeps them from one that can't do them.
    """
    if not any(Part.qr_code in family.serves for family in families):
        return False
    refuses_qr = SDXL in families and bool(lacks_sdxl_control(installed, families))
    return not refuses_qr and bool(lacks_qr(installed, families))


_LOST_WITHOUT_QR = (
    "some kinds of jobs don't come until the files for QR code jobs are here, since QR code jobs"
    " would come with them: the horde sends none with DDIM and karras, lcm, tiling, LoRAs by their"
    " version, several source pictures, the eight newest upscalers and face fixers, the 27 newest"
    " samplers, schedules but normal and karras, options of samplers, extended control types,"
    " flow_shift, or control_strength"
)
_FAULTS_QR = (
    "QR code jobs come without being asked for and can't be made: each is given back, which the"
    " horde counts as a dropped job; it sends nothing at all to older workers that offer Flux"
)
_QR_REMEDY = (
    "./horde-bridge.sh models add control_qr brings the QR ControlNet of Stable Diffusion 1"
    " (0.7 to 1.5 GB of disk; add --dry-run to see it first)"
)
