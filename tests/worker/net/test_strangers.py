"""What strangers send: what they say is safe to show, and costs no more than it may."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from hordelib.errors import BadSource, DownloadFailed, InvalidParams, shown
from hordelib.job.payload import read_payload
from hordelib.texts import harmless
from tests.support.bounds import bounded, frugal
from tests.support.civitai_server import Model, Version
from tests.support.linear import MOST_GROWTH, growth
from tests.support.raw_server import Talk, raw_server
from tests.support.reference_server import new_row, old_row
from tests.support.sandbox_client import MODEL
from worker.errors import HordeError, UnusableJob
from worker.horde.accounts import Account, ServedModel, Team, WorkerChanges, WorkerRecord
from worker.horde.api import FullPop, Job, NothingToDo, Offer
from worker.horde.client import HordeClient
from worker.line.source_fetcher import SourceFetcher
from worker.loras.civitai import Civitai, CivitaiVersion, triggers
from worker.loras.files import closest
from worker.models.reference import Kind, read_list
from worker.net.addresses import parsed
from worker.net.fetch import Web
from worker.net.untrusted import one_line, read_json

AGENT = "AI Horde Worker:24.1.0:https://example.org"
OFFER = Offer(name="a worker", models=("M",), bridge_agent=AGENT, max_pixels=1024**2)
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)

# A terminal's command, a forged line, a text that reads backwards, a mark of no width, a length.
EVIL = (
    "\x1b[2J\x1b]0;mine\x07 all\r\n2026 ERROR paid \u202egnihton\u2066\u200b\x9b31m" + "z" * 200_000
)
SIGNS = ["\x1b", "\n", "\r", "\x07", "\u202e", "\u2066", "\x9b", "z" * 1000]


def insist_on_plain(text: str) -> None:
    insist_on_harmless(text)
    assert text.isprintable()


def insist_on_harmless(text: str) -> None:
    """It may have spaces of all kinds, and what joins letters or has no width."""
    assert not [sign for sign in SIGNS if sign in text]
    assert harmless(text) == text


# ---- texts ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.text(max_size=60), st.integers(1, 40))
def test_a_text_becomes_one_line_of_a_length(text: str, longest: int):
    line = one_line(text, longest)
    assert len(line) <= longest
    assert line.isprintable()
    assert text.strip() == line or not text.isprintable() or len(text) > longest


def test_an_evil_text_becomes_one_line():
    insist_on_plain(one_line(EVIL))
    assert one_line(EVIL).endswith("…")


ANSWERS: dict[str, tuple[object, Callable[[HordeClient], object]]] = {
    "account": (
        {"username": EVIL, "id": 1, "kudos": 1.0, "worker_ids": ["a"]},
        lambda it: it.whoami(),
    ),
    "worker": (
        {"id": "a", "name": EVIL, "type": EVIL, "online": True, "maintenance_mode": False,
         "owner": EVIL},
        lambda it: it.worker_by_name("tester", Account(username="a#1", id=1, kudos=0)),
    ),
    "changed worker": (
        {"maintenance": True, "info": EVIL, "team": EVIL},
        lambda it: it.change_worker("an id", WorkerChanges(maintenance=True)),
    ),
    "teams": ([{"id": "a", "name": EVIL}], lambda it: it.teams()),
    "worker of a team": (
        {"id": "a", "name": "n", "type": "image", "online": True, "maintenance_mode": False,
         "info": EVIL, "team": {"name": EVIL}, "performance": EVIL},
        lambda it: it.worker_by_name("tester", Account(username="a#1", id=1, kudos=0)),
    ),
    "models": ([{"name": EVIL, "count": 1}], lambda it: it.model_names()),
    "empty pop": (
        {"id": None, "skipped": {EVIL: 1, "nsfw": -(10**400)},
         "messages": [{"id": EVIL, "message": EVIL, "origin": EVIL, "expiry": EVIL}]},
        lambda it: it.pop(OFFER),
    ),
}  # fmt: skip


def answering(status: int, answer: bytes) -> Talk:
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    return lambda wire, _: wire.sendall(head + answer)


def said_by(call: Callable[[HordeClient], object], status: int, answer: bytes) -> str:
    """All that comes of an answer: what is read of it, or the error."""
    with (
        raw_server(answering(status, answer)) as horde,
        HordeClient(horde.url, "a-key", timeout=(5, 5), client_agent=AGENT) as client,
    ):
        try:
            return f"{_fields(call(client))}"
        except HordeError as error:
            return f"{error} {getattr(error, 'remedy', '')}"


def _fields(value: object) -> str:
    """The texts themselves: repr would write what is not printable in other letters."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return " ".join(f"{_fields(key)} {_fields(each)}" for key, each in items)
    if isinstance(value, tuple | list | frozenset):
        return " ".join(map(_fields, cast("tuple[object, ...]", value)))
    if isinstance(value, BaseModel):
        return " ".join(_fields(getattr(value, name)) for name in type(value).model_fields)
    if is_dataclass(value):
        return " ".join(_fields(getattr(value, field.name)) for field in fields(value))
    return f"{value}"


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_horde_calls_things_is_safe_to_show(name: str):
    answer, call = ANSWERS[name]
    said = said_by(call, 200, json.dumps(answer).encode())
    insist_on_harmless(said)
    assert "zzz" in said


NAMES = [
    "Mon\u00a0modèle",
    "日本\u3000風景",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "rig \U0001f469\u200d\U0001f3a8",
    "a  b",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_compared_or_sent_back_stay_what_they_are(name: str):
    assert FullPop.model_validate(POP | {"model": name}, strict=False).model == name
    assert Team(id="a", name=name).name == name
    assert ServedModel(name=name, count=1).name == name
    row = {"id": "a", "name": name, "type": "image", "online": True, "maintenance_mode": False}
    assert WorkerRecord.model_validate(row).name == name
    rows = {name: old_row(name, "a.ckpt", "https://host/a", "ab" * 32)}
    assert [entry.name for entry in read_list(json.dumps(rows), Kind.model).entries] == [name]
    asked = read_payload({"prompt": "a", "width": 64, "height": 64, "loras": [{"name": name}]})
    assert asked.loras[0].name == name.strip()
    assert closest(name, [name]) == name


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 302])
@pytest.mark.parametrize(
    "answer",
    [
        {"message": EVIL, "rc": EVIL[:500], "errors": {EVIL[:500]: EVIL}},
        {"message": 1, EVIL[:300]: 2},
        [EVIL[:300]],
        {"errors": {EVIL[:300]: 1}},
    ],
)
def test_a_refusal_is_safe_to_show(status: int, answer: object):
    insist_on_plain(said_by(lambda it: it.pop(OFFER), status, json.dumps(answer).encode()))


@pytest.mark.parametrize("answer", [{EVIL[:200]: 1}, {"id": EVIL}, {"id": "a", "ids": [EVIL[:50]]}])
def test_an_answer_that_is_none_is_safe_to_show(answer: object):
    insist_on_plain(said_by(lambda it: it.pop(OFFER), 200, json.dumps(answer).encode()))


def test_a_row_of_the_reference_is_safe_to_show():
    row = old_row("A Model", "a.ckpt", "https://host/a", "ab" * 32)
    rows = {"A Model": row, EVIL: row, "B": row | {"baseline": 1}, "C": {"config": {EVIL[:99]: 1}}}
    listed = read_list(json.dumps(rows), Kind.model)
    assert [entry.name for entry in listed.entries] == ["A Model"]
    assert len(listed.problems) == 3
    insist_on_plain(" ".join(listed.problems))


def test_a_list_of_bad_rows_is_told_in_a_few_lines():
    row = old_row("A Model", "a.ckpt", "https://host/a", "ab" * 32)
    rows = {"A Model": row} | {f"{number}": {} for number in range(5000)}
    problems = read_list(json.dumps(rows), Kind.model).problems
    assert len(problems) == 21
    assert problems[-1] == "model reference: 4980 more rows that can't be used"


@pytest.mark.parametrize("name", ["ü" * 200 + ".pt", "a" * 300 + ".pt", "a\u202e.pt", "a\x9b.pt"])
def test_a_file_name_that_no_disk_takes_or_nobody_can_read_is_refused(name: str):
    rows = {"A Model": old_row("A Model", name, "https://host/a", "ab" * 32)}
    with pytest.raises(ValueError, match="is no name for a file"):
        read_list(json.dumps(rows), Kind.model)


@pytest.mark.parametrize(
    "value",
    [10**4000, -(10**5000), [10**5000] * 100, {"a" * 9999: "b" * 9999}, "c" * 10**6, [[[[[0]]]]]],
    ids=["4001 digits", "negative", "numbers in a list", "a dictionary", "a text", "depth"],
)
def test_an_error_cuts_the_value_that_it_shows(value: object):
    told = str(InvalidParams("width", value, "a multiple of 64"))
    assert len(told) < 200
    assert told.startswith("width=")
    insist_on_plain(told)


def test_a_number_of_many_digits_is_told_by_their_count():
    assert shown(10**4000) == "a number of about 4001 digits"
    assert shown(512) == "512"


@pytest.mark.parametrize("url", ["http://" + "a" * 300, "http://a/" + "b" * 9000, f"http://{EVIL}"])
def test_an_address_that_none_has_is_not_read(url: str):
    with pytest.raises(ValueError, match=r"address|parse"):
        parsed(url)
    with pytest.raises(BadSource) as caught:
        SourceFetcher("http://127.0.0.1", client_agent=AGENT).fetch(url)
    insist_on_plain(str(caught.value))


# ---- JSON of bounded cost ---------------------------------------------------------------------

WIDE: dict[str, tuple[bytes, bytes, bytes]] = {  # of which the middle is repeated
    "lists": (b'{"id": "a", "skipped": [', b"[],", b"[]]}"),
    "texts": (b'{"id": "a", "skipped": [', b'"",', b'""]}'),
    "texts that end in a backslash": (b"[", b'"\\\\",', b'""]'),
    "keys": (b'{"id": "a", "skipped": {', b'"a":1,', b'"a":1}}'),
    "depth": (b"", b'{"id":', b""),
    "digits": (b'{"id": ', b"9", b"}"),
}


@pytest.mark.parametrize("name", WIDE)
def test_wide_and_deep_json_is_refused_at_no_cost(name: str):
    start, piece, end = WIDE[name]
    document = start + piece * (30_000_000 // len(piece)) + end
    wanted = pytest.raises(ValueError, match=r"more than|recursion|number|json")
    with bounded(seconds=0.5), wanted:
        read_json(ANYTHING, document)


def test_commas_in_a_text_are_no_values():
    text = "{[," * 1_000_000 + '\\"' * 1000
    assert read_json(ANYTHING, json.dumps({"prompt": text}).encode(), 100) == {"prompt": text}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (rb"a \ud83d b", "a ? b"),
        (rb"\uDE00", "?"),
        (rb"\ud83d\ud83d\ude00\ude00", "?\U0001f600?"),
        (rb"\\\ud83d \\ud83d", "\\? \\ud83d"),
        (rb"\ud83d\n\u0041", "?\nA"),
    ],
)
def test_half_a_surrogate_pair_costs_itself_and_not_the_whole_answer(sent: bytes, read: str):
    assert read_json(ANYTHING, b'{"prompt": "' + sent + b'"}') == {"prompt": read}


@pytest.mark.parametrize("piece", [rb"\ud83d", rb"\\", b"\\u0041", rb"\ud83d\ude00", b"a"])
def test_an_answer_is_mended_in_a_time_that_does_not_grow_faster_than_it(piece: bytes):
    def read(size: int) -> None:
        with pytest.raises(ValueError, match=r"surrogate|escape|expected|EOF"):
            read_json(ANYTHING, b'["\\ud800' + piece * size + b"\\ud800x")

    assert growth(read, 100_000) <= MOST_GROWTH


def values_in(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(values_in, cast("dict[str, object]", value).values()))
    return 1 + sum(map(values_in, cast("list[object]", value))) if isinstance(value, list) else 1


TEXTS = st.text(st.sampled_from('a"\\,[{}]\u20ac'), max_size=8)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(VALUES, st.integers(1, 40))
def test_more_values_than_wanted_are_refused_and_half_as_many_never(value: object, most: int):
    document = json.dumps(value, ensure_ascii=False).encode()
    if values_in(value) > most + 1:
        with pytest.raises(ValueError, match=f"more than {most} values"):
            read_json(ANYTHING, document, most)
    elif 2 * values_in(value) <= most:
        assert read_json(ANYTHING, document, most) == value


def test_a_pop_of_thirty_megabytes_of_nothing_is_no_answer():
    answer = b'{"id": "a", "x": [' + b"[]," * 10_000_000 + b"[]]}"
    with bounded(seconds=2, more_bytes=200 << 20):
        said = said_by(lambda it: it.pop(OFFER), 200, answer)
    assert "not an answer of a horde (more than" in said


def test_an_answer_is_no_longer_than_what_was_asked_for():
    long = json.dumps({"username": "a" * (3 << 20)}).encode()
    assert "longer than any of the horde's" in said_by(lambda it: it.whoami(), 200, long)


def test_of_an_error_of_any_length_the_beginning_is_read():
    long = b'{"message": "' + b"a" * (3 << 20) + b'"}'
    assert "HTTP500: POST" in said_by(lambda it: it.pop(OFFER), 500, long)


# ---- anything at all, at each reader -----------------------------------------------------------

ODD: list[object] = [
    None, True, 0, -1, 10**400, 1.5, "", "a", EVIL[:300], [], [[]], {}, {"": None}, ["a"] * 50,
]  # fmt: skip


def spoilt(document: object, chance: random.Random, times: int) -> Any:
    """A copy with odd values at some places, odd keys, and places that are gone."""
    whole: dict[str, Any] = {"whole": deepcopy(document)}
    for _ in range(times):
        parent: Any = whole
        key: Any = "whole"
        while keys_of(parent[key]) and chance.random() < 0.8:
            parent = parent[key]
            key = chance.choice(keys_of(parent))
        if parent is not whole and isinstance(key, str) and chance.random() < 0.2:
            parent[chance.choice(["", EVIL[:40], "id"])] = parent.pop(key)
        else:
            parent[key] = deepcopy(chance.choice(ODD))
    return whole["whole"]


def keys_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[Any, Any]", value))
    return list(range(len(cast("list[Any]", value)))) if isinstance(value, list) else []


def spoilings(document: object) -> st.SearchStrategy[bytes]:
    """Documents of a good form with odd contents, and broken bytes of them."""

    def made(seed: int) -> bytes:
        chance = random.Random(seed)
        text = json.dumps(spoilt(document, chance, chance.randint(1, 3)))
        if chance.random() < 0.2:
            cut = chance.randrange(len(text) + 1)
            text = (
                text[:cut] + chance.choice(["", "\0", "]", '"', "1e999", "NaN"]) + text[cut + 1 :]
            )
        return text.encode("utf-8", "replace")

    return st.integers(0, 2**32).map(made)


POP = {
    "payload": {"prompt": "a red circle", "seed": "7", "width": 64},
    "id": "first",
    "ids": ["first", "second"],
    "messages": [{"id": "m", "message": "hello", "origin": "o", "expiry": "e"}],
    "ttl": 150,
    "skipped": {"nsfw": 1},
    "model": MODEL,
    "source_image": "http://127.0.0.1/e",
    "source_processing": "img2img",
    "source_mask": None,
    "extra_source_images": [{"image": "http://127.0.0.1/e", "strength": 1}],
    "r2_uploads": ["http://127.0.0.1/1", "http://127.0.0.1/2"],
}
fuzzed = settings(max_examples=150, deadline=None, database=None, derandomize=True)


class Saying:
    """A server's talk whose answer changes, over one connection for each question."""

    answer: bytes = b""

    def __call__(self, wire: socket.socket, _heard: bytes) -> None:
        answering(200, self.answer)(wire, b"")


def test_any_pop_is_a_job_or_nothing_or_an_error():
    saying = Saying()
    with (
        raw_server(saying) as horde,
        HordeClient(horde.url, "a-key", timeout=(5, 5), client_agent=AGENT) as client,
    ):

        @fuzzed
        @given(spoilings(POP))
        @frugal
        def pop(answer: bytes) -> None:
            saying.answer = answer
            with suppress(HordeError):
                popped = client.pop(OFFER)
                assert isinstance(popped, Job | NothingToDo)
                insist_on_plain(_fields(popped.messages))
                if isinstance(popped, Job):
                    insist_on_plain(" ".join((*popped.ids, popped.model, popped.source_processing)))

        pop()


class Page(Web):
    """What a site answers, without the way there."""

    def __init__(self) -> None:
        super().__init__("a worker")
        self.answer = b""

    def read(self, url: str, deadline: float, most_bytes: int) -> bytes:
        return self.answer


def insist_on_a_version(version: CivitaiVersion) -> None:
    assert version.version_id > 0
    assert version.model_id > 0
    texts = (version.model_name, version.version_name, version.type, version.base_model)
    insist_on_harmless(" ".join(texts))
    insist_on_plain(" ".join(version.triggers))
    assert max(map(len, texts)) <= 255
    if version.file is not None:
        assert 0 < version.file.size_bytes < 10**16
        assert len(version.file.sha256) in (0, 64)


@pytest.mark.parametrize("path", ["models", "version", "search"])
def test_any_page_of_civitai_gives_versions_or_an_error(path: str):
    web = Page()
    civitai = Civitai(web, ("https://site",))
    model = Model(100, "Ink", [Version(1001, triggers=("ink",)), Version(1002)])
    row, version = model.row("https://site"), model.versions[0].row("https://site", model)

    def by_id() -> tuple[CivitaiVersion, ...]:
        return civitai.model(100, 1).versions

    def lone() -> tuple[CivitaiVersion, ...]:
        return (civitai.version(1001, 1),)

    def found() -> tuple[CivitaiVersion, ...]:
        return tuple(each for it in civitai.search("i", ("LORA",), 1) for each in it.versions)

    ways = {"models": (row, by_id), "version": (version, lone), "search": ({"items": [row]}, found)}
    page, asked = ways[path]

    @fuzzed
    @given(spoilings(page))
    @frugal
    def ask(answer: bytes) -> None:
        web.answer = answer
        with suppress(DownloadFailed):
            for version in asked():
                insist_on_a_version(version)

    ask()


@pytest.mark.parametrize(
    "spoil",
    [
        {"id": 0}, {"id": -1}, {"id": 10**13}, {"modelId": 0}, {"modelId": None},
        {"files": [{"name": "a.safetensors", "sizeKB": float("nan"), "downloadUrl": "u"}]},
        {"files": [{"name": "a.safetensors", "sizeKB": float("inf"), "downloadUrl": "u"}]},
        {"files": [{"name": "a.safetensors", "sizeKB": -5, "downloadUrl": "u"}]},
    ],
)  # fmt: skip
def test_a_version_that_can_not_be_is_none(spoil: dict[str, object]):
    web = Page()
    model = Model(100, "Ink", [Version(1001)])
    web.answer = json.dumps(model.versions[0].row("https://site", model) | spoil).encode()
    with pytest.raises(DownloadFailed, match="not an answer of CivitAI"):
        Civitai(web, ("https://site",)).version(1001, 1)


LISTS = {
    "A": old_row("A", "a.ckpt", "https://host/a", "ab" * 32),
    "B": new_row("B", {"file_name": "b.safetensors", "file_url": "u", "size_bytes": 1}),
}


@fuzzed
@given(spoilings(LISTS))
@frugal
def test_any_list_of_the_reference_gives_rows_or_an_error(text: bytes):
    with suppress(ValueError):
        listed = read_list(text.decode(), Kind.model)
        insist_on_plain(" ".join(listed.problems))
        insist_on_harmless(" ".join(entry.name for entry in listed.entries))
        for entry in listed.entries:
            insist_on_plain(" ".join((entry.style, *(str(file.path) for file in entry.files))))
            assert all(len(Path(file.path).name.encode()) <= 240 for file in entry.files)


def test_the_ids_of_a_job_with_a_wide_payload_are_not_lost():
    payload: dict[str, object] = {"prompt": "a", "odd": [""] * 100}
    wide = json.dumps(POP | {"payload": payload, "ttl": -1}).encode()
    with (
        raw_server(answering(200, wide)) as horde,
        HordeClient(horde.url, "a-key", timeout=(5, 5), client_agent=AGENT) as client,
        pytest.raises(UnusableJob) as caught,
    ):
        client.pop(OFFER)
    assert caught.value.ids == ("first", "second")


def read_unended(size: int) -> None:
    with pytest.raises(ValueError, match="EOF"):
        read_json(ANYTHING, b'{"x":["' + b',\\"' * size, 5)


def read_tags(size: int) -> None:
    for _ in range(20):
        triggers(("<:" + "a" * size,) * 20)


@pytest.mark.parametrize(("read", "size"), [(read_unended, 10_000), (read_tags, 400)])
def test_texts_that_never_end_are_read_in_a_time_that_grows_with_their_length(
    read: Callable[[int], None], size: int
):
    assert growth(read, size) <= MOST_GROWTH
