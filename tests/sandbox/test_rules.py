"""The horde's rules without HTTP, on a clock that moves when told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.sandbox_client import (
    AGENT,
    CLIENT_KEY,
    MODEL,
    MODELS,
    NEWBIE_KEY,
    WORKER_KEY,
    MovableClock,
)
from tests.support.sandbox_client import offer as usual_offer
from worker.sandbox import DEFAULT_USERS, GATE_OF_5_1_5, ReferenceModel, State, Tally, Timing, User
from worker.sandbox.books import Books
from worker.sandbox.errors import Refusal
from worker.sandbox.horde import Horde
from worker.sandbox.replies import Json, Links
from worker.sandbox.sources import Pictures
from worker.sandbox.wire import GenerateBody, PopBody, SubmitBody, parse

Change = Mapping[str, object]

GATE_13 = "AI Horde Worker reGen:13.0.0:x"
CLASSIC = "AI Horde Worker:24.1.0:x"
CONTROL, VERSION = {"controlnet": 1}, {"bridge_version": 1}


class Player:
    """Drives a horde as client and worker."""

    def __init__(self, clock: MovableClock, users: Iterable[User] = DEFAULT_USERS):
        self.clock = clock
        self.horde = Horde(MODELS, users, clock, Timing())
        self._links = Links(self.horde.store, "http://horde")

    def ask(self, params: Change | None = None, *, key: str = CLIENT_KEY, **changes: object) -> str:
        body: Json = {"prompt": "a red circle", "models": [MODEL]} | changes
        body["params"] = {"steps": 20} | dict(params or {})
        raw = json.dumps(body).encode()
        reply = self.horde.generate(key, parse(GenerateBody, raw), Pictures())
        return str(reply["id"])

    def pop(self, *, key: str = WORKER_KEY, **changes: object) -> dict[str, Any]:
        raw = json.dumps(usual_offer(**changes)).encode()
        return self.horde.pop(key, parse(PopBody, raw), self._links)

    def skipped(self, **changes: Any) -> dict[str, int]:
        """What speaks against all waiting requests, without the zeros."""
        reply = self.pop(**changes)
        assert reply["id"] is None
        return {name: count for name, count in reply["skipped"].items() if count}

    def submit(self, id: str, *, key: str = WORKER_KEY, **changes: object) -> float:
        body = {"id": id, "generation": "R2", "seed": 1} | changes
        reply = self.horde.submit(key, parse(SubmitBody, json.dumps(body).encode()))
        reward = reply["reward"]
        assert isinstance(reward, float)
        return reward

    def check(self, id: str) -> dict[str, Any]:
        return self.horde.check(id)

    def books(self) -> Books:
        return self.horde.books(Tally({}, {}, {}))

    def refusal(self, call: Callable[[], object]) -> str | None:
        with pytest.raises(Refusal) as caught:
            call()
        return caught.value.rc


@pytest.fixture
def player(clock: MovableClock) -> Player:
    return Player(clock)


def test_a_late_submit_counts_until_the_cleaner_has_run(player: Player):
    player.clock.move(40)
    player.ask()
    id = player.pop()["id"]
    player.clock.move(190)
    assert player.submit(id) > 0, "the cleaner ran at 180 s, when the job was 140 s old"


def test_the_cleaner_aborts_and_requeues_what_outlived_its_ttl(player: Player):
    request = player.ask()
    id = player.pop()["id"]
    player.clock.move(181)
    assert player.refusal(lambda: player.submit(id)) == "AbortedGen"
    assert player.submit(id, state="faulted") == 0
    check = player.check(request)
    assert (check["waiting"], check["restarted"], check["processing"]) == (1, 1, 0)
    assert player.books().generation(id).state is State.aborted


def test_three_dropped_images_end_a_request_but_not_what_is_held(player: Player):
    request = player.ask({"n": 4})
    ids = player.pop(amount=4)["ids"]
    for id in ids[:3]:
        player.submit(id, state="faulted")
    assert not player.check(request)["faulted"]
    player.clock.move(60)
    check = player.check(request)
    assert (check["faulted"], check["done"], check["waiting"]) == (True, True, 3)
    assert player.pop()["id"] is None
    assert player.submit(ids[3]) > 0


def test_a_request_expires_after_20_minutes_and_takes_its_jobs_along(player: Player):
    request = player.ask()
    player.clock.move(600)
    id = player.pop(extra_slow_worker=False)["id"]
    player.clock.move(1199)
    assert player.check(request)["restarted"] == 1, "the pop postponed the end"
    held = player.pop()["id"]
    player.clock.move(1200 + 60)
    assert player.refusal(lambda: player.check(request)) == "RequestNotFound"
    assert player.refusal(lambda: player.submit(id)) == "InvalidJobID"
    assert player.books().generation(held).state is not State.processing
    assert player.books().request(request).expired


def test_a_job_whose_request_expired_is_cancelled(player: Player):
    player.ask({"width": 2048, "height": 2048, "steps": 150})
    id = player.pop(max_pixels=2048 * 2048)["id"]
    player.clock.move(1200)
    assert player.refusal(lambda: player.submit(id)) == "InvalidJobID"
    assert player.books().generation(id).state is State.cancelled


def test_too_many_dropped_jobs_put_the_worker_into_maintenance(player: Player):
    for _ in range(21):
        player.ask()
        player.submit(player.pop()["id"], state="faulted")
        player.horde.clean()
    assert player.refusal(player.pop) == "WorkerMaintenance"


def test_drops_older_than_an_hour_are_forgiven(player: Player):
    for _ in range(2):
        for _ in range(15):
            player.ask()
            player.submit(player.pop()["id"], state="faulted")
        player.clock.move(3601)
    assert player.pop()["id"] is None


def test_settings_change_only_with_a_check_in(player: Player):
    player.pop(nsfw=False)
    player.clock.move(31)
    player.ask(nsfw=True)
    assert player.skipped(nsfw=False) == {"nsfw": 1}
    player.clock.move(29)
    assert player.skipped(nsfw=True) == {"nsfw": 1}
    player.clock.move(1)
    assert player.pop(nsfw=True)["id"] is not None


def test_models_count_with_every_pop_but_are_checked_with_a_check_in(player: Player):
    player.pop()
    player.clock.move(31)
    player.pop()
    assert player.pop(models=["No Such Model"])["id"] is None
    player.ask(models=["Demo XL"])
    assert player.pop(models=["No Such Model", "Demo XL"])["model"] == "Demo XL"
    player.clock.move(30)
    assert player.refusal(lambda: player.pop(models=["No Such Model"])) == "BadRequest"


def test_upfront_kudos_are_asked_for_only_on_a_check_in(player: Player):
    for _ in range(3):
        player.ask({"n": 10}, key=NEWBIE_KEY)
    assert player.skipped(require_upfront_kudos=True) == {"kudos": 3}
    player.clock.move(31)
    assert player.skipped(require_upfront_kudos=True) == {"kudos": 3}
    assert player.pop(require_upfront_kudos=True)["id"] is not None


def test_owner_and_preferred_users_come_before_the_rich(player: Player):
    rich, poor, own = player.ask(), player.ask(key=NEWBIE_KEY), player.ask(key=WORKER_KEY)
    ids = [player.pop(priority_usernames=["newbie#3"])["id"] for _ in range(3)]
    popped = [player.books().generation(id).request_id for id in ids]
    assert popped == [own, poor, rich]


@pytest.mark.parametrize(
    ("params", "request_change", "worker_change", "reason"),
    [
        ({"width": 1088, "height": 1024}, {}, {}, {"max_pixels": 1}),
        ({"steps": 31}, {}, {"limit_max_steps": True}, {"step_count": 1}),
        ({}, {}, {"blacklist": ["RED"]}, {"blacklist": 1}),
        ({}, {"nsfw": True}, {"nsfw": False}, {"nsfw": 1}),
        ({}, {"models": ["Demo XL"]}, {}, {"models": 1}),
        ({}, {}, {"models": ["Demo Inpainting"]}, {}),
        ({"loras": [{"name": "ink"}]}, {}, {"allow_lora": False}, {"lora": 1}),
        ({"post_processing": ["GFPGAN"]}, {}, {"allow_post_processing": False}, {}),
        ({"transparent": True}, {}, {}, {}),
        ({"transparent": True}, {}, {"bridge_agent": "AI Horde Worker reGen:7:x"}, {}),
        ({"control_type": "canny"}, {"source_image": "x"}, {"allow_controlnet": False}, CONTROL),
        ({"control_type": "tile"}, {"source_image": "x"}, {}, CONTROL),
        ({"control_type": "tile"}, {"source_image": "x"}, {"bridge_agent": GATE_13}, VERSION),
        ({"scheduler": "beta"}, {}, {"bridge_agent": GATE_13}, VERSION),
        ({"hires_fix": True}, {"models": ["Demo Flux"]}, {"models": ["Demo Flux"]}, VERSION),
        ({}, {"models": []}, {"models": ["Demo Inpainting"]}, {}),
        ({}, {}, {"models": [MODEL, "Demo Flux"], "bridge_agent": CLASSIC}, {"bridge_version": 1}),
        ({}, {"extra_source_images": [{"image": "x"}]}, {"bridge_agent": CLASSIC}, {}),
        ({}, {}, {"extra_slow_worker": True}, {"performance": 1}),
        ({}, {}, {"bridge_agent": "AI Horde Worker reGen:1.0.0:x"}, {"bridge_version": 2}),
        ({}, {}, {"bridge_agent": "My Worker:1.0.0:x"}, {}),
    ],
)
def test_what_does_not_fit_is_skipped_and_counted(
    player: Player,
    params: Change,
    request_change: dict[str, Any],
    worker_change: dict[str, Any],
    reason: dict[str, int],
):
    player.ask(params, **request_change)
    assert player.skipped(**worker_change) == reason


def test_untrusted_workers_get_no_request_for_trusted_ones(player: Player):
    player.ask(trusted_workers=True)
    assert player.pop(key=NEWBIE_KEY)["skipped"]["untrusted"] == 1


def test_pictures_sent_through_a_vpn_go_to_whom_they_may(clock: MovableClock):
    behind_a_vpn = replace(DEFAULT_USERS[2], safe_ip=False)
    player = Player(clock, (*DEFAULT_USERS, behind_a_vpn))
    player.ask(source_image="x")
    assert player.skipped(allow_unsafe_ipaddr=False) == {"unsafe_ip": 1}
    assert player.pop(key=NEWBIE_KEY, name="another")["id"] is None, "its owner is not trusted"
    assert player.pop()["id"], "which is taken unless the worker says so"
    player.ask()
    assert player.pop(allow_unsafe_ipaddr=False)["id"], "it counts for pictures alone"


def test_a_request_may_name_or_ban_workers(player: Player):
    player.pop()
    player.ask(workers=["tester"])
    assert player.skipped(name="another") == {"worker_id": 1}
    assert player.pop()["id"] is not None
    player.ask(workers=["tester"], worker_blacklist=True)
    assert player.skipped() == {"worker_id": 1}


def test_a_slow_worker_gets_no_request_of_the_impatient(player: Player):
    player.ask()
    id = player.pop()["id"]
    player.clock.move(100)
    player.submit(id)
    player.ask(slow_workers=False)
    assert player.skipped() == {"performance": 1}


def test_extra_slow_workers_get_their_own_requests_and_three_times_the_time(player: Player):
    player.ask(extra_slow_workers=True)
    assert player.pop(extra_slow_worker=True)["ttl"] == 450


@pytest.mark.parametrize(
    ("agent", "credited"),
    [
        ("AI Horde Worker reGen:18.0.0:x", 6),
        ("AI Horde Worker reGen:17.17.0:x", 5),
        ("AI Horde Worker reGen:13.0.0:x", 5),
        ("AI Horde Worker:24.0.0:x", 6),
        ("My Worker:1.0.0:x", 4),
    ],
)
def test_the_bridge_decides_how_much_of_a_reward_is_credited(
    player: Player, agent: str, credited: int
):
    player.ask(r2=False)
    player.submit(player.pop(bridge_agent=agent)["id"])
    assert player.books().worker_kudos == {"tester": credited}


@pytest.mark.parametrize(("gate", "credited"), [(18, 6), (13, 6), (12, 5)])
def test_a_server_of_5_1_5_takes_a_newer_bridge_for_its_newest(
    player: Player, gate: int, credited: int
):
    player.horde.set_newest_gate(GATE_OF_5_1_5)
    agent = f"AI Horde Worker reGen:{gate}.0.0:x"
    player.ask()
    player.submit(player.pop(bridge_agent=agent)["id"])
    assert player.books().worker_kudos == {"tester": credited}
    player.ask({"scheduler": "beta"})
    assert player.skipped(bridge_agent=agent) == VERSION, "it has no such feature to grant"


def test_extended_control_types_come_to_those_who_ask_for_them(player: Player):
    player.ask({"control_type": "tile"}, source_image="x")
    job = player.pop(allow_extended_controlnet=True)
    assert job["payload"]["control_type"] == "tile"


@pytest.mark.parametrize(("agent", "told"), [(AGENT, "karras"), (GATE_13, None)])
def test_only_a_bridge_that_knows_schedules_is_told_the_old_ones_by_name(
    player: Player, agent: str, told: str | None
):
    player.ask({"scheduler": "karras", "karras": False})
    payload = player.pop(bridge_agent=agent)["payload"]
    assert payload["karras"]
    assert payload.get("scheduler") == told


@pytest.mark.parametrize(
    ("params", "change", "rc"),
    [
        ({"control_type": "canny"}, {"models": ["Demo XL"]}, "ControlNetMismatch"),
        ({"control_type": "canny"}, {"models": ["Demo Flux"]}, "ControlNetMismatch"),
        ({"transparent": True}, {"models": ["Demo Flux"]}, "InvalidTransparencyModel"),
    ],
)
def test_what_no_bridge_can_do_is_refused(
    player: Player, params: Change, change: dict[str, Any], rc: str
):
    assert player.refusal(lambda: player.ask(params, source_image="x", **change)) == rc


def test_a_pending_model_is_served_and_paid_like_any_other(player: Player):
    pending = {"Krea 2 Turbo": ReferenceModel("krea2_turbo"), MODEL: ReferenceModel("flux_1")}
    player.horde.add_pending(pending)
    paid = {
        name: player.submit(player.pop(models=[name])["id"])
        for name in ("Krea 2 Turbo", MODEL)
        if player.ask(models=[name])
    }
    assert paid["Krea 2 Turbo"] == paid[MODEL] == pytest.approx(8 * 5.76, rel=0.04)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("Mine [SDXL]", 2),
        ("Mine [Flux]", 8),
        ("Mine [Qwen]", 12),
        ("Mine [ZModel]", 8),
        ("Mine [ZImage]", 8),
        ("Mine", 1),
    ],
)
def test_the_name_of_an_unknown_model_says_what_it_is(clock: MovableClock, name: str, factor: int):
    owner = replace(DEFAULT_USERS[1], customizer=True)
    player = Player(clock, (*DEFAULT_USERS, owner))
    player.ask(models=[name])
    reward = player.submit(player.pop(models=[name])["id"])
    assert reward == pytest.approx(factor * 5.76, rel=0.04)


def test_half_of_an_untrusted_owners_pay_is_held_back(player: Player):
    player.ask()
    player.submit(player.pop(key=NEWBIE_KEY)["id"], key=NEWBIE_KEY)
    assert player.books().user_kudos["newbie#3"] == 28


def test_ten_minutes_online_are_paid(player: Player):
    player.pop()
    for _ in range(7):
        player.clock.move(100)
        player.pop()
    assert player.books().worker_kudos == {"tester": 82}


def test_time_in_maintenance_is_not_paid(player: Player):
    player.pop()
    player.horde.set_maintenance("tester", "fan")
    for _ in range(7):
        player.clock.move(100)
        assert player.refusal(player.pop) == "WorkerMaintenance"
    assert player.books().worker_kudos == {"tester": 0}


@pytest.mark.parametrize(
    ("params", "promise", "fits"),
    [
        ({"steps": 30}, "", True),
        ({"steps": 31}, "", False),
        ({"steps": 15, "sampler_name": "k_heun"}, "", True),
        ({"steps": 16, "sampler_name": "k_heun"}, "", False),
        ({"steps": 8, "sampler_name": "k_dpm_adaptive"}, "", False),
        ({"steps": 8, "sampler_name": "k_dpm_adaptive"}, "1.0", True),
        ({"steps": 9, "sampler_name": "k_dpm_adaptive"}, "1.0", False),
        ({"steps": 12, "sampler_name": "k_dpm_adaptive", "sampler_order": 2}, "1.0", True),
        ({"steps": 8, "sampler_name": "k_dpm_adaptive"}, "2.0", False),
    ],
)
def test_a_limit_of_steps_counts_what_they_cost_at_most(
    player: Player, params: Change, promise: str, fits: bool
):
    """Of a model with 20 to 40 steps, 30 runs of the network are the limit."""
    player.ask(params)
    job = player.pop(limit_max_steps=True, sampler_execution_contract_version=promise)
    assert (job["id"] is not None) is fits
