"""What a client may ask for, and what it costs to ask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from worker.horde.kudos import UPSCALERS
from worker.sandbox.errors import Refusal
from worker.sandbox.records import Account, Records, Request, Sources, State
from worker.sandbox.rules import pricing
from worker.sandbox.rules.capabilities import SIGMA_GENERATORS, renderable
from worker.sandbox.rules.sampling import check_options
from worker.sandbox.sources import Pictures
from worker.sandbox.wire import GenerateBody, Params

MAX_LORAS = 5
MAX_STEPS_FOR_FREE = 40
MAX_CONTROLNET_STEPS_FOR_FREE = 20
MAX_LCM_STEPS_FOR_FREE = 10
MAX_SIDE_FOR_FREE = 1024
MIN_SIDE_FOR_FREE = 576
LIFE_SECONDS = 20 * 60

_ALWAYS_LARGE = frozenset({"stable_diffusion_xl", "stable_cascade", "flux_1"})
_WITH_SIGMA_GENERATORS = frozenset({"stable_diffusion_1", "stable_diffusion_xl"})
_WITH_FLOW_SHIFT = frozenset({"flux_1", "flux_schnell", "flux_dev", "qwen_image"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of generate/async, with everything that the rules look at."""

    records: Records
    account: Account
    body: GenerateBody
    pictures: Pictures

    @property
    def baseline(self) -> str:
        return pricing.baseline_of(self.records.requested_model(self.body))

    @property
    def baselines(self) -> set[str]:
        """Of all models that may serve the request."""
        named = [self.records.model(name) for name in self.body.models]
        return {pricing.baseline_of(row) for row in named} or {self.baseline}

    @property
    def cannot_be_rendered(self) -> bool:
        """Whether no bridge at all can do this with any of the models."""
        return not any(renderable(self.body.params, baseline) for baseline in self.baselines)

    @property
    def open_images(self) -> int:
        mine = [row for row in self.records.unfinished() if row.account is self.account]
        return sum(row.waiting + row.count(State.processing) for row in mine)


Rule = Callable[[Asked], bool]


def _implied_schedule(params: Params) -> str:
    return "karras" if params.karras else "normal"


RULES: Mapping[str, Rule] = {
    "MaintenanceMode": lambda asked: asked.records.maintenance_mode,
    "RequiresTrust": lambda asked: asked.body.disable_batching and not asked.account.user.trusted,
    "TooManyLoras": lambda asked: len(asked.body.params.loras) > MAX_LORAS,
    "BadCFGDecimals": lambda asked: (
        round(asked.body.params.cfg_scale, 2) != asked.body.params.cfg_scale
    ),
    "TooManyUpscalers": lambda asked: (
        len(UPSCALERS.intersection(asked.body.params.post_processing)) > 1
    ),
    "SourceMaskUnnecessary": lambda asked: (
        asked.body.source_mask is not None and asked.body.source_image is None
    ),
    "ControlNetSourceMissing": lambda asked: (
        asked.body.params.control_type is not None and asked.body.source_image is None
    ),
    "ControlNetMismatch": lambda asked: (
        asked.body.params.control_type is not None and asked.cannot_be_rendered
    ),
    "InvalidTransparencyModel": lambda asked: (
        asked.body.params.transparent and asked.cannot_be_rendered
    ),
    "SamplerSchedulerMismatch": lambda asked: (
        asked.body.params.sampler_name == "dpmpp_3m_sde"
        and (asked.body.params.scheduler or _implied_schedule(asked.body.params)) == "normal"
    ),
    "SchedulerBaselineMismatch": lambda asked: (
        asked.body.params.scheduler in SIGMA_GENERATORS
        and not asked.baselines <= _WITH_SIGMA_GENERATORS
    ),
    "FlowShiftInapplicable": lambda asked: (
        asked.body.params.flow_shift is not None and not asked.baselines <= _WITH_FLOW_SHIFT
    ),
    "FlowShiftOutOfRange": lambda asked: not 0 <= (asked.body.params.flow_shift or 0) <= 100,
    "InpaintingMissingMask": lambda asked: (
        asked.body.paints and asked.pictures.mask is None and not asked.pictures.has_alpha
    ),
}


def admit(asked: Asked, *, threads: int) -> GenerateBody:
    """The request as it is accepted, downgraded where the client allowed that.

    `threads` is how many images the online workers make at once. Raises Refusal.
    """
    for rc, broken in RULES.items():
        if broken(asked):
            raise Refusal(rc)
    check_options(asked.body.params)
    _check_workers(asked)
    _check_concurrency(asked)
    return _check_upfront(asked, threads)


def enter(asked: Asked, body: GenerateBody, id: str, now: float, sources: Sources) -> Request:
    """Queue an admitted request and charge what asking costs."""
    request = Request(
        id=id,
        account=asked.account,
        body=body,
        sources=sources,
        created_at=now,
        expires_at=now + LIFE_SECONDS,
        waiting=body.params.n,
        consumed_kudos=pricing.ACCEPTANCE_KUDOS,
    )
    asked.account.kudos -= pricing.ACCEPTANCE_KUDOS
    asked.records.enter(request)
    return request


def _check_workers(asked: Asked) -> None:
    known = {worker.id for worker in asked.records.workers.values()}
    known.update(asked.records.workers)
    for id in asked.body.workers:
        if id not in known:
            raise Refusal("WorkerNotFound", id=id)


def _check_concurrency(asked: Asked) -> None:
    parallel = asked.open_images + asked.body.params.n
    limit = asked.account.user.concurrency
    if parallel > limit and not asked.body.dry_run:
        raise Refusal("TooManyPrompts", open=parallel, limit=limit)


def _check_upfront(asked: Asked, threads: int) -> GenerateBody:
    """Large, long and impatient requests are for those who can pay at once."""
    body = asked.body
    cost = pricing.estimate(body, asked.records.requested_model(body))
    side, steps = _free_side(asked, threads), _free_steps(body)
    params = body.params
    large = params.pixels > side * side or params.effective_steps > steps
    if asked.account.kudos >= cost or not (large or not body.slow_workers) or body.dry_run:
        return body
    if not body.allow_downgrade:
        raise Refusal("KudosUpfront", kudos=cost)
    return _downgraded(body, side, steps)


def _free_side(asked: Asked, threads: int) -> int:
    if asked.baseline in _ALWAYS_LARGE:
        return MAX_SIDE_FOR_FREE
    queue = sum(request.waiting for request in asked.records.open_requests())
    side = MAX_SIDE_FOR_FREE + 10 * threads - 0.9 * queue
    return int(min(max(side, MIN_SIDE_FOR_FREE), MAX_SIDE_FOR_FREE))


def _free_steps(body: GenerateBody) -> int:
    if body.params.sampler_name == "lcm":
        return MAX_LCM_STEPS_FOR_FREE
    if body.params.control_type is not None:
        return MAX_CONTROLNET_STEPS_FOR_FREE
    return MAX_STEPS_FOR_FREE


def _downgraded(body: GenerateBody, side: int, steps: int) -> GenerateBody:
    """The same shape within side² pixels, both sides multiples of 64."""
    params = body.params
    scale = min(1.0, math.sqrt(side * side / params.pixels))
    smaller = {
        "width": max(64, int(params.width * scale) // 64 * 64),
        "height": max(64, int(params.height * scale) // 64 * 64),
        "steps": min(params.effective_steps, steps),
    }
    changes = {"params": params.model_copy(update=smaller), "slow_workers": True}
    return body.model_copy(update=changes)
