"""Which request may go to which worker, and what the rest is skipped for.

One row per reason. Keys and order are those of `skipped` in an empty pop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from worker.sandbox.records import Records, Request, Worker
from worker.sandbox.rules import pricing
from worker.sandbox.rules.capabilities import FLUX, shortcomings
from worker.sandbox.rules.sampling import most_sampler_work
from worker.sandbox.wire import EXTENDED_CONTROL_TYPES, PopBody

SLOW_PIXELSTEPS_PER_SECOND = 500_000
# An empty pop shows these even when they are 0.
ALWAYS_SHOWN = (
    "unsafe_ip", "img2img", "painting", "post-processing", "lora", "controlnet", "worker_id",
    "performance", "nsfw", "untrusted", "models", "bridge_version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """A pop: the worker's stored settings, and what this very pop says instead of them."""

    worker: Worker
    models: tuple[str, ...]
    amount: int
    priority_usernames: tuple[str, ...]
    checks_in: bool

    @property
    def settings(self) -> PopBody:
        return self.worker.offer


Reason = Callable[[Records, Offer, Request], bool | int]


def _worker_id(_: Records, offer: Offer, request: Request) -> bool:
    body = request.body
    listed = bool({offer.worker.id, offer.worker.name}.intersection(body.workers))
    return bool(body.workers) and listed == body.worker_blacklist


def _performance(_: Records, offer: Offer, request: Request) -> bool:
    body = request.body
    if offer.settings.extra_slow_worker and not body.extra_slow_workers:
        return True
    slow = offer.worker.pixelsteps_per_second < SLOW_PIXELSTEPS_PER_SECOND
    return slow and not body.slow_workers


def _models(records: Records, offer: Offer, request: Request) -> bool:
    return not _accepted_models(records, offer, request)


def _bridge_version(records: Records, offer: Offer, request: Request) -> int:
    """Causes are added up, so that it may exceed the number of requests."""
    agent = records.agent(offer.worker)
    baselines = {pricing.baseline_of(records.model(name)) for name in offer.models}
    is_shut_out = bool(baselines & FLUX) and "flux" not in agent.features  # whatever is asked for
    return shortcomings(agent, request.body) + is_shut_out + _renders_none(records, offer, request)


def _renders_none(records: Records, offer: Offer, request: Request) -> bool:
    """Whether the bridge can do what is asked for with none of the models that would be right."""
    accepted = _accepted_models(records, offer, request)
    return bool(accepted) and not servable_models(records, offer, request)


def _step_count(records: Records, offer: Offer, request: Request) -> bool:
    if not offer.settings.limit_max_steps:
        return False
    model = records.requested_model(request.body)
    most = most_sampler_work(
        request.body.params, bounds_adaptive_solvers=offer.settings.bounds_adaptive_solvers
    )
    return most > (model.min_steps + model.max_steps) / 2


def _blacklist(_: Records, offer: Offer, request: Request) -> bool:
    prompt = request.body.prompt.lower()
    return any(word.lower() in prompt for word in offer.settings.blacklist)


def _kudos(records: Records, offer: Offer, request: Request) -> bool:
    if not (offer.settings.require_upfront_kudos and offer.checks_in):
        return False
    cost = pricing.estimate(request.body, records.requested_model(request.body))
    return request.account.kudos < cost


def _controlnet(records: Records, offer: Offer, request: Request) -> bool:
    params, settings = request.body.params, offer.settings
    if params.control_type is None:
        return False
    if params.control_type not in EXTENDED_CONTROL_TYPES or not settings.allow_controlnet:
        return not settings.allow_controlnet
    # An older bridge can't say that it has these, and is told of its version alone.
    may_say_so = "extended_controlnet" in records.agent(offer.worker).features
    return may_say_so and not settings.allow_extended_controlnet


def _has_unsafe_source(request: Request) -> bool:
    return request.body.source_image is not None and not request.account.user.safe_ip


REASONS: Mapping[str, Reason] = {
    "unsafe_ip": lambda _, o, r: _has_unsafe_source(r) and not o.settings.allow_unsafe_ipaddr,
    "img2img": lambda _, o, r: (
        r.body.source_image is not None and not r.body.paints and not o.settings.allow_img2img
    ),
    "painting": lambda _, o, r: r.body.paints and not o.settings.allow_painting,
    "post-processing": lambda _, o, r: (
        bool(r.body.params.post_processing) and not o.settings.allow_post_processing
    ),
    "lora": lambda _, o, r: bool(r.body.params.loras) and not o.settings.allow_lora,
    "controlnet": _controlnet,
    "worker_id": _worker_id,
    "performance": _performance,
    "nsfw": lambda _, o, r: r.body.nsfw and not o.settings.nsfw,
    "untrusted": lambda _, o, r: r.body.trusted_workers and not o.worker.owner.user.trusted,
    "models": _models,
    "bridge_version": _bridge_version,
    "max_pixels": lambda _, o, r: r.body.params.pixels > o.settings.max_pixels,
    "step_count": _step_count,
    "blacklist": _blacklist,
    "kudos": _kudos,
}

# What the server counts where it differs from what it decides.
MISCOUNTED: Mapping[str, Reason] = {
    "max_pixels": lambda _, o, r: r.body.params.pixels >= o.settings.max_pixels,
    "post-processing": lambda _records, _offer, _request: 0,
}


def servable_models(records: Records, offer: Offer, request: Request) -> list[str]:
    """Models of the offer that the request accepts and the bridge can use, in the offer's order."""
    agent, params = records.agent(offer.worker), request.body.params
    return [
        name
        for name in _accepted_models(records, offer, request)
        if agent.renders(params, pricing.baseline_of(records.model(name)))
    ]


def _accepted_models(records: Records, offer: Offer, request: Request) -> list[str]:
    if request.body.paints and not any(records.model(name).inpainting for name in offer.models):
        return []
    wanted = request.body.models
    return [name for name in offer.models if not wanted or name in wanted]


def fits(records: Records, offer: Offer, request: Request) -> bool:
    """True if this worker may have the request now."""
    if _is_kept_quiet(records, offer, request):
        return False
    return not any(reason(records, offer, request) for reason in REASONS.values())


def skipped(records: Records, offer: Offer, requests: list[Request]) -> dict[str, int]:
    """How often each reason speaks against the requests that the worker is told of."""
    visible = [row for row in requests if not _is_kept_quiet(records, offer, row)]
    counted = {**REASONS, **MISCOUNTED}
    counts = {
        name: sum(int(reason(records, offer, request)) for request in visible)
        for name, reason in counted.items()
    }
    shown = {name: counts.get(name, 0) for name in ALWAYS_SHOWN}
    return shown | {name: n for name, n in counts.items() if n and name not in shown}


def _is_kept_quiet(records: Records, offer: Offer, request: Request) -> bool:
    """Whether a request is refused without a word of it in `skipped`."""
    body, features = request.body, records.agent(offer.worker).features
    has_trust = offer.worker.owner.user.trusted or request.account.user.trusted
    return (
        (body.r2 and "r2" not in features)
        or (bool(body.extra_source_images) and "extra_source_images" not in features)
        or (body.params.transparent and not offer.settings.allow_sdxl_controlnet)
        or (_has_unsafe_source(request) and not has_trust)
        or (not body.paints and all(records.model(name).inpainting for name in offer.models))
    )
