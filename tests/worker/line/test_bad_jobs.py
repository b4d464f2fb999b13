"""A whole line under jobs with bad inputs of every kind, among good ones; the horde's books judge.

Each job is delivered, with exactly the notes that its own inputs call for, but for those that no
worker could serve. `--bad-jobs 300` asks for more of each kind.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from hordelib.demo_model import ensure_control_net, ensure_lora
from hordelib.files.model import Model as Served
from tests.conftest import SHOWN
from tests.hordelib.comfyui.test_loras import MISFITS, SPOILT, spoilt
from tests.hordelib.job.test_source_images import WORK
from tests.support.civitai_server import Model, Version, civitai_server
from tests.support.hostile_horde import HostileHorde, Json, hostile_horde
from tests.support.looks import pixels
from tests.support.sandbox_client import CLIENT_KEY, MODEL, MODELS, WORKER_KEY, Api, picture
from worker.children.engine import EngineProcess
from worker.children.judge import JudgeProcess
from worker.children.messages import EngineSettings, JudgeSettings
from worker.config.keys import BridgeConfig
from worker.config.values import CLIENT_AGENT
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.line.bridge import Bridge
from worker.line.devices.device import Device
from worker.line.intake import Intake
from worker.line.limits import Limits
from worker.line.source_fetcher import SourceFetcher
from worker.models.offer import offer_maker
from worker.models.offered import OfferedModels
from worker.models.opening import Models
from worker.safety.judging import Judging
from worker.safety.policy import censorship_of
from worker.sandbox import GenerationEntry, Sandbox, State, Timing, wire
from worker.sandbox.rules import sampling
from worker.service.assembly import make_adapters, make_client

SMALL = {"width": 64, "height": 64, "steps": 1, "cfg_scale": 4.0, "sampler_name": "k_euler"}
GOOD_SHARE = 4  # a good job after so many bad ones
LORA_IDS = {name: 1000 + i for i, name in enumerate(("fine", "page", *MISFITS, *SPOILT))}
TI_IDS = {"fine": 2000, "nan": 2001, "wide": 2002, "bomb": 2003}
UNAVOIDABLE = ("*",)  # no picture, whatever a worker does

Spoil = Callable[[Json, int], None]
"""Changes the answer to a pop of the request of this number."""


@dataclass(frozen=True)
class Kind:
    """What is sent, and the patterns of the notes that have to come back, in their order.

    `{n}` in them is the request's own number.
    """

    spoil: Spoil
    told: tuple[str, ...] = ()


def numbered(kind: Kind, number: int) -> Callable[[Json], None]:
    """What one request of the kind is spoilt by."""
    return lambda popped: kind.spoil(popped, number)


def payload(**changes: object) -> Spoil:
    """`{n}` in a prompt or a name is the request's own number."""

    def spoil(popped: Json, number: int) -> None:
        text = json.dumps(changes).replace("{n}", str(number))
        popped["payload"].update(json.loads(text))

    return spoil


def source(data: bytes | str, field: str = "source_image", **changes: object) -> Spoil:
    text = data if isinstance(data, str) else b64encode(data).decode()
    return lambda popped, _: popped.update({"source_image": GOOD_SOURCE} | {field: text} | changes)


def lora(name: str) -> Spoil:
    return payload(loras=[{"name": str(LORA_IDS[name]), "model": 1.0, "clip": 1.0}])


def ti(name: object, prompt: str = "a red circle") -> Spoil:
    return payload(tis=[{"name": str(name), "inject_ti": "prompt"}], prompt=prompt)


def qr_code(side: int) -> Spoil:
    texts = [{"reference": "qr_code", "text": "hi"}, {"reference": "protocol", "text": "none"}]
    return payload(workflow="qr_code", width=side, height=side, extra_texts=texts)


def any_sampling(popped: Json, number: int) -> None:
    """A sampler, options and a schedule that the horde lets through, drawn from the number.

    k_dpm_adaptive is left out: whether it has to be stopped, nobody knows before.
    """
    draw = random.Random(number)
    names = sorted(set(get_args(wire.Sampler)) - {sampling.ADAPTIVE})
    name = draw.choice(names)
    most = {"order": 4, "s_tmax": 20, "s_tmin": 5}
    asked: Json = {"ddim_steps": draw.randint(2, 4), "sampler_name": name}
    for option, (low, high) in sampling.LIMITS.get(name, {}).items():
        limit = min(high, most.get(option, 2))
        value = (
            draw.randint(int(low), int(limit)) if option == "order" else draw.uniform(low, limit)
        )
        asked |= {f"sampler_{option}": value} if draw.random() < 0.5 else {}
    if name in sampling.SOLVER_TYPES:
        asked["sampler_solver_type"] = draw.choice(sorted(sampling.SOLVER_TYPES[name]))
    schedules = set(get_args(wire.Scheduler)) - ({"normal"} if name == "dpmpp_3m_sde" else set())
    popped["payload"].update(asked | {"scheduler": draw.choice(sorted(schedules))})


GOOD_SOURCE = b64encode(picture(mode="RGB")).decode()
NULLS = dict.fromkeys(["control_type", "control_strength", "seed_variation", "scheduler"])
CUT = "information see_ref a prompt of * chunks of 75 tokens was cut after 32"
KINDS: dict[str, Kind] = {
    "good": Kind(lambda _popped, _number: None),
    "good source": Kind(source(GOOD_SOURCE)),
    "good QR": Kind(qr_code(192)),
    "good LoRA": Kind(lora("fine")),
    "LoRA page": Kind(lora("page"), (f"lora download_failed {LORA_IDS['page']}",)),
    "LoRA absent": Kind(
        payload(loras=[{"name": "absent{n}", "model": 1.0}]), ("lora download_failed absent{n}",)
    ),
    **{
        f"LoRA {name}": Kind(lora(name), (f"lora {value} {LORA_IDS[name]}",))
        for name, (_, value) in MISFITS.items()
    },
    **{
        f"LoRA {name}": Kind(
            lora(name), (f"information see_ref LoRA {LORA_IDS[name]} fits in part: *",)
        )
        for name in SPOILT
    },
    "good sampling": Kind(any_sampling),
    "good TI": Kind(ti(TI_IDS["fine"])),
    "TI nan": Kind(ti(TI_IDS["nan"]), (f"ti parse_failed {TI_IDS['nan']}",)),
    "TI wide": Kind(ti(TI_IDS["wide"]), (f"ti baseline_mismatch {TI_IDS['wide']}",)),
    "TI absent": Kind(ti("absent{n}"), ("ti download_failed absent{n}",)),
    "TI words": Kind(
        payload(prompt="a circle, (embedding:secret{n}:1.2) ### embedding:hidden{n} blurry"),
        ("ti download_failed secret{n}", "ti download_failed hidden{n}"),
    ),
    "TI bomb": Kind(
        ti(TI_IDS["bomb"], f"a embedding:{TI_IDS['bomb']} " * 700),
        (
            f"information see_ref textual inversion {TI_IDS['bomb']} has 13643 vectors: *",
            "information see_ref textual inversions beyond *",
            "information see_ref textual inversions after *",
            CUT,
        ),
    ),
    "QR too small": Kind(qr_code(64), UNAVOIDABLE),
    "side of digits": Kind(payload(width=10**4000), UNAVOIDABLE),
    "no workflow": Kind(payload(workflow="conjuring"), UNAVOIDABLE),
    "nulls": Kind(
        payload(
            **NULLS,
            loras=[None, {"name": str(LORA_IDS["fine"]), "model": None, "inject_trigger": None}],
            tis=[None, {"name": str(TI_IDS["fine"]), "strength": None, "inject_ti": None}],
            extra_texts=[None],
        )
    ),
    "no base64": Kind(source("not base64!"), ("source_image parse_failed source_image: *",)),
    "source page": Kind(
        source(b"<html>not found</html>"), ("source_image parse_failed source_image: *",)
    ),
    "source line": Kind(
        source(WORK["a line of 16 million pixels"][0]),
        ("source_image parse_failed source_image: *",),
    ),
    "source secret": Kind(
        source("http://169.254.169.254/latest/meta-data"),
        ("source_image parse_failed source_image: *",),
    ),
    "mask page": Kind(
        source(b"<html>", "source_mask", source_processing="inpainting"), UNAVOIDABLE
    ),
    "control of nothing": Kind(
        payload(control_type="canny", control_strength=None),
        ("information see_ref control_type left out: there is no source image",),
    ),
    "one step of kl_optimal": Kind(payload(scheduler="kl_optimal", ddim_steps=1)),
    "controls": Kind(payload(prompt="a\0 red\x1b[31m circle\a\n\u200c\u200d, \x9b of {n}")),
    "joiners": Kind(payload(prompt="a red circle \U0001f468\u200d\U0001f469\u200d\U0001f467 {n}")),
    "surrogate": Kind(payload(prompt="a red \ud83d circle {n}")),
    "braces": Kind(
        payload(prompt="{" * 1_000_000),
        ("information see_ref a prompt of 1000000 characters was cut after *", CUT),
    ),
    "marks": Kind(
        payload(prompt="a" + "\u0301" * 80_000),
        ("information see_ref a prompt of 80001 characters was cut after *", CUT),
    ),
    "weights": Kind(
        payload(prompt="a (red:1e30) circle"),
        ("information see_ref weights in a prompt beyond 20 were brought down to it",),
    ),
    "options": Kind(
        payload(sampler_name="deis", sampler_order=0, sampler_eta=0.5, flow_shift=3),
        (
            "information see_ref sampler_eta left out: deis has no such option",
            "information see_ref sampler_order=0 left out: expected a whole number from 2 to 4",
            "information see_ref flow_shift left out: not with stable diffusion 1 models",
        ),
    ),
    "3m": Kind(
        payload(sampler_name="dpmpp_3m_sde", karras=False, sampler_eta=[]),
        (
            "information see_ref sampler_eta=[[][]] left out: *",
            "information see_ref scheduler simple was used: dpmpp_3m_sde diverges with normal",
        ),
    ),
    "sampler": Kind(
        payload(sampler_name="own{n}"),
        ("information see_ref sampler 'own{n}' is unknown: *",),
    ),
}


def published(id: int, content: bytes, kind: str) -> Model:
    sha256 = hashlib.sha256(content).hexdigest()  # once, not with each page
    return Model(id, f"Own {id}", [Version(id + 5000, content, sha256=sha256)], kind)


def loras(models: Path) -> Iterator[Model]:
    state = load_file(ensure_lora(models))
    part = next(key for key in state if "_unet_" in key).partition(".")[0]
    files = {
        "fine": save(state),
        "page": b"<html>please log in</html>",
        **{name: save(change(state)) for name, (change, _) in MISFITS.items()},
        **{name: save(state | spoilt(name, part)) for name in SPOILT},
    }
    return (published(LORA_IDS[name], content, "LORA") for name, content in files.items())


def tis() -> Iterator[Model]:
    vectors = {
        "fine": torch.full((2, 768), 0.01),
        "nan": torch.full((2, 768), torch.nan),
        "wide": torch.ones(2, 1024),
        "bomb": torch.zeros(13_643, 768, dtype=torch.half),
    }
    return (
        published(TI_IDS[name], save({"emb_params": values}), "TextualInversion")
        for name, values in vectors.items()
    )


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Path, models: Path) -> Path:
    """A models folder with the demo model and a ControlNet for QR codes."""
    folder = tmp_path / "models"
    for name, file in {
        f"compvis/{checkpoint.name}": checkpoint,
        "controlnet/control_v1p_sd15_qrcode_monster_v2.safetensors": ensure_control_net(models),
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(file)
    return folder


def order_of(requests: int) -> list[str]:
    """Every kind equally often, good ones in between; two of a kind often follow each other."""
    draw = random.Random(27)
    bad = [name for name in KINDS if not name.startswith("good")]
    good = [name for name in KINDS if name.startswith("good")]
    names = [bad[i % len(bad)] for i in range(requests * GOOD_SHARE // (GOOD_SHARE + 1))]
    names += [good[i % len(good)] for i in range(requests - len(names))]
    draw.shuffle(names)
    return names


@dataclass(frozen=True)
class Asked:
    """The requests of a run by their ids: each one's kind and number."""

    requests: Mapping[str, tuple[Kind, int]]

    @classmethod
    def of(cls, client: Api, names: list[str]) -> Asked:
        return cls(
            {
                client.ask_id(
                    SMALL | {"n": 1 + (number % 4 == 0), "seed": str(number)},
                    prompt=f"{name} {number}: a red circle on a blue background",
                ): (KINDS[name], number)
                for number, name in enumerate(names)
            }
        )

    def complaint(self, row: GenerationEntry, webp: bytes | None) -> str:
        """What is wrong with the end of an image; "" for nothing."""
        kind, number = self.requests[row.request_id]
        if (row.state is not State.ok) or kind.told is UNAVOIDABLE:
            is_right = row.state is State.faulted and kind.told is UNAVOIDABLE
            return "" if is_right else f"ended as {row.state}"
        notes = [
            f"{note['type']} {note['value']} {note.get('ref', '')}"
            for note in row.gen_metadata
            if note["type"] != "batch_index"
        ]
        expected = [pattern.replace("{n}", str(number)) for pattern in kind.told]
        if len(notes) != len(expected) or not all(map(fnmatchcase, notes, expected)):
            return f"noted {notes} instead of {expected}"
        with Image.open(io.BytesIO(webp or b"")) as image:
            return "" if pixels(image).std() > 5 else "a picture of one colour"


@dataclass
class Stage:
    """A worker that has not started, its horde, and the kinds of jobs to ask it for."""

    bridge: Bridge
    sandbox: Sandbox
    names: list[str]


@pytest.fixture
def stage(
    folder: Path, models: Path, checkpoint: Path, request: pytest.FixtureRequest
) -> Generator[Stage]:
    """Of the horde's rules, the one on dropped jobs is lax: some of these have to be dropped."""
    names = order_of(int(str(request.config.getoption("--bad-jobs"))))
    spoils = {f"{name} {i}": numbered(KINDS[name], i) for i, name in enumerate(names)}
    with (
        Sandbox(MODELS, limits={}, timing=Timing(drop_window_seconds=1)) as horde,
        civitai_server(*loras(models), *tis()) as site,
        hostile_horde(horde.url, spoils, [], {}) as hostile,
        closing(Ledger(None)) as ledger,
    ):
        journal = Journal(ledger, most_drops=10**6)
        bridge = make_bridge(hostile, folder, checkpoint, site.url, journal)
        yield Stage(bridge, horde, names)
        assert journal.jobs() == ()


def make_bridge(
    hostile: HostileHorde, folder: Path, checkpoint: Path, site: str, journal: Journal
) -> Bridge:
    """Real in all its parts; what jobs name is found at `site`."""
    config = BridgeConfig.model_validate(
        {
            "api_key": WORKER_KEY,
            "dreamer_name": "tester",
            "models_to_load": [MODEL],
            "horde_url": hostile.url,
            "max_batch": 4,
            "allow_lora": True,
            "allow_controlnet": True,
        }
    )
    models = Models({MODEL: Served.of_checkpoint(checkpoint, MODEL)}, ())
    logs = folder.parent
    return Bridge(
        make_client(config),
        [Device(EngineProcess(EngineSettings(None, "auto", 256 << 20, None, logs / "engine.log")))],
        Intake(
            OfferedModels(offer_maker(config, logs), models.served),
            folder,
            SourceFetcher(config.horde_url, client_agent=CLIENT_AGENT),
            make_adapters(config, folder, (site,)),
        ),
        Judging(
            JudgeProcess(JudgeSettings(logs, False, logs / "judge.log")),
            lambda: censorship_of(config),
        ),
        journal,
        Limits(waiting_jobs=8),
    )


@pytest.mark.timeout(1800)
def test_among_bad_inputs_of_every_kind_each_job_ends_as_it_has_to(
    stage: Stage, caplog: pytest.LogCaptureFixture, record_property: Callable[[str, object], None]
):
    caplog.set_level(logging.DEBUG, "worker")
    with Api(stage.sandbox.url, CLIENT_KEY) as client:
        asked = Asked.of(client, stage.names)
    serve_all(stage)
    books = stage.sandbox.books()
    ends = Counter(
        (stage.names[asked.requests[row.request_id][1]], row.state) for row in books.generations
    )
    record_property(SHOWN, "\n".join(f"{n:3} {name}: {end}" for (name, end), n in ends.items()))
    complaints = [
        f"{stage.names[asked.requests[row.request_id][1]]}: {told}"
        for row in books.generations
        if (told := asked.complaint(row, stage.sandbox.image(row.id)))
    ]
    assert not complaints, "\n".join(complaints)
    assert {row.request_id for row in books.generations} == asked.requests.keys()
    assert "jobs share a batch" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
    assert caplog.text.count("engine ready on") == 1


def serve_all(stage: Stage) -> None:
    """Until all requests are done. Fails where the worker ends before, or no longer gets on."""
    stage.bridge.start()
    done, until = -1, 0.0
    try:
        while not all(request.done for request in stage.sandbox.books().requests):
            assert not stage.bridge.is_stopping, stage.bridge.failure
            ended = sum(request.done for request in stage.sandbox.books().requests)
            done, until = (ended, time.monotonic() + 120) if ended != done else (done, until)
            assert time.monotonic() < until, f"{done} requests are done, and no more"
            time.sleep(0.05)
    finally:
        stage.bridge.stop()
        assert stage.bridge.join(60), stage.bridge.busy
