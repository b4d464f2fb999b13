"""What is censored, what goes in its place, and what the horde is told of it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from hordelib.job.images import Picture
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.safety.verdict import Verdict
from tests.support.linear import MOST_GROWTH, growth
from tests.support.owner import Home
from tests.support.safety_stand_in import install, put_weights
from worker.cli.check import Verdict as Checked
from worker.cli.check import findings
from worker.cli.exit_codes import ExitCode, exit_code
from worker.config.config import load_config
from worker.errors import JudgeUnusable
from worker.horde.api import Submission
from worker.safety.censorship import (
    AsItIs,
    Cause,
    Censorship,
    Outcome,
    Replaced,
    _words,
    asks_for,
    censor_card,
)
from worker.safety.policy import is_public, judge_settings, unfound

NSFW = Verdict(nsfw=True)
CSAM = Verdict(nsfw=True, csam=True)


def cause(outcome: Outcome) -> Cause | None:
    return outcome.cause if isinstance(outcome, Replaced) else None


@pytest.mark.parametrize(
    ("policy", "use_nsfw_censor", "expected"),
    [
        (Censorship(), False, None),
        (Censorship(nsfw=False), False, Cause.NSFW),
        (Censorship(censor_nsfw=True), False, Cause.NSFW),
        (Censorship(), True, Cause.NSFW),
    ],
)
def test_nsfw_is_censored_where_owner_or_client_want_none(
    policy: Censorship, use_nsfw_censor: bool, expected: Cause | None
):
    given = {"use_nsfw_censor": use_nsfw_censor}
    assert cause(policy.outcome("a cat", verdict=NSFW, **given)) == expected
    assert policy.outcome("a cat", verdict=Verdict(), **given) == AsItIs()


def test_csam_is_always_replaced_and_told_as_such():
    outcome = Censorship().outcome("a cat", use_nsfw_censor=False, verdict=CSAM)
    note = GenMetadata(MetadataType.CENSORSHIP, MetadataValue.CSAM)
    assert outcome == Replaced(Cause.CSAM, note)


def test_an_accusation_comes_before_a_word_of_the_list():
    policy = Censorship(censorlist=("cat",))
    assert cause(policy.outcome("cat", use_nsfw_censor=True, verdict=CSAM)) is Cause.CSAM
    assert cause(policy.outcome("cat", use_nsfw_censor=True, verdict=NSFW)) is Cause.WORD
    assert cause(policy.outcome("cat", use_nsfw_censor=False, verdict=Verdict())) is Cause.WORD


@pytest.mark.parametrize(
    ("prompt", "words", "found"),
    [
        ("a giant SPIDER", "spider", True),
        ("a giant spider", "Giant  Spider", True),
        ("((giant) spider:1.3)", "giant spider", True),
        ("giant_spider", "giant spider", True),
        ("a\nspider", "spider", True),
        ("spiders", "spider", False),
        ("a spiderweb", "spider", False),
        ("spider, giant", "giant spider", False),
        ("a web ### spider", "spider", False),
        ("ＳＰＩＤＥＲ", "spider", True),  # noqa: RUF001 - full-width letters
        ("Straße", "STRASSE", True),
        ("a spi\u200dder", "spider", True),
        ("a spi\u00adder", "spider", True),
        ("a spi\u034fder", "spider", True),
        ("a spi\ufe0fder", "spider", True),
        ("a spi\u115fd\u1160e\u3164r\uffa0", "spider", True),
        ("a sp\u0301\u0301ider", "spider", False),
        ("", "spider", False),
    ],
)
def test_whole_words_of_the_positive_prompt_count(prompt: str, words: str, found: bool):
    assert asks_for(prompt, words) is found


@pytest.mark.parametrize("piece", ["\u0315\u0300", "spider ", "\ufdfa", "\u200d"])
def test_texts_are_compared_in_a_time_that_grows_with_their_length(piece: str):
    texts = (piece * 2_000 + str(i) for i in count())
    longer = (piece * 4_000 + str(i) for i in count())

    def compare(size: int) -> bool:
        return asks_for(next(longer if size > 2_000 else texts), "spider")

    assert growth(compare, 2_000) <= MOST_GROWTH


def test_a_prompt_is_made_comparable_once_for_all_words_and_pictures():
    words = tuple(f"word {i}" for i in range(50))
    policy = Censorship(censorlist=words)
    before = _words.cache_info().misses
    for _ in range(20):
        policy.outcome("a prompt of its own", use_nsfw_censor=False, verdict=Verdict())
    assert _words.cache_info().misses - before == len(words) + 1


@pytest.mark.parametrize("size", [(64, 64), (64, 512), (512, 64), (1024, 768)])
def test_a_card_is_as_large_as_the_picture_and_has_nothing_of_it(size: tuple[int, int]):
    width, height = size
    first = Picture(width, height, bytes([255, 0, 0] * width * height), seed=7)
    other = Picture(width, height, bytes([0, 255, 0, 9] * width * height), seed=7, mode="RGBA")
    card = censor_card(first, Cause.NSFW)
    assert card == censor_card(other, Cause.NSFW)
    assert (card.width, card.height, card.seed, card.mode) == (width, height, 7, "RGB")
    assert len(card.to_webp()) < 20_000


def test_a_card_has_text_within_its_frame():
    for side in (64, 512):
        card = censor_card(Picture(side, side, bytes(side * side * 3), seed=1), Cause.WORD).to_pil()
        grey = card.convert("L")
        assert sum(grey.histogram()[200:]) > 20  # pixels of the writing
        inside = side // 16 + max(1, side // 128)
        beside = grey.crop((inside, side // 4, inside + max(1, side // 64), side * 3 // 4))
        assert beside.getextrema() == (grey.getpixel((0, 0)),) * 2


def test_the_horde_is_told_by_a_note_that_is_never_cut():
    note = GenMetadata(MetadataType.CENSORSHIP, MetadataValue.NSFW)
    many = tuple(GenMetadata.batch_index(i) for i in range(60))
    body = Submission.ok("id", 1, (*many, note)).body()
    assert body["gen_metadata"][0] == {"type": "censorship", "value": "nsfw"}
    assert len(body["gen_metadata"]) == 50
    assert (body["state"], body["censored"]) == ("ok", True)
    assert Submission.ok("id", 1, many[:2]).body()["censored"] is False


# ---- how well the owner wants it judged --------------------------------------------------------


def written(home: Path, url: str, safety: str = "") -> Path:
    path = home / "bridgeData.yaml"
    path.write_text(
        'api_key: "abcdefghijklmnopqrstuv"\ndreamer_name: "a worker"\n'
        "models_to_load: [Deliberate]\n"
        f"horde_url: {url}\nsafety: {safety}\n",
        "utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://aihorde.net", True),
        ("https://AIHorde.net:443/api", True),
        ("https://aihorde.net./", True),
        ("https://stablehorde.net", True),
        ("https://dev.aihorde.net", True),
        ("https://notaihorde.net", False),
        ("https://aihorde.net.example.org", False),
        ("http://192.168.1.7:7001", False),
        ("http://127.0.0.1:7001", False),
        ("http://[::1]:7001", False),
        ("http://localhost:7001", False),
    ],
)
def test_the_public_horde_is_known_by_its_names(url: str, public: bool):
    assert is_public(url) is public


PUBLIC, NEIGHBOUR, HERE = "https://aihorde.net", "http://192.168.1.7:7001", "http://127.0.0.1:7001"


@pytest.mark.parametrize(
    ("url", "safety"),
    [(PUBLIC, "required"), (NEIGHBOUR, "required"), (HERE, "required"), (PUBLIC, "")],
)
def test_nothing_is_served_without_a_checker_that_is_required(
    tmp_path: Path, url: str, safety: str
):
    config = load_config(written(tmp_path, url, safety))
    with pytest.raises(JudgeUnusable, match=r"^safety: required.* --safety") as caught:
        unfound(config, tmp_path)
    assert ("the default at aihorde.net" in str(caught.value)) is (safety == "")
    assert exit_code(caught.value) is ExitCode.NO_JUDGE


def test_run_asks_for_the_checker_before_it_asks_the_network_for_anything(tmp_path: Path):
    file = written(tmp_path, PUBLIC)
    file.write_text(f"{file.read_text('utf-8')}page: ''\n", "utf-8")  # with one, it waits there
    code, output = Home(tmp_path).run("run")
    assert code == ExitCode.NO_JUDGE
    told = output.splitlines()[-1]
    assert told.startswith("dreamer: safety: required, the default at aihorde.net, but ")
    assert "./update-runtime.sh --safety" in told
    assert "20 MB of packages, 1.6 GB of weights and 3.5 GB of memory" in told


@pytest.mark.parametrize(
    ("url", "safety"), [(PUBLIC, "best_effort"), (NEIGHBOUR, "best_effort"), (NEIGHBOUR, "")]
)
def test_best_effort_serves_and_says_what_is_not_checked(tmp_path: Path, url: str, safety: str):
    config = load_config(written(tmp_path, url, safety))
    assert "not checked for CSAM" in unfound(config, tmp_path)
    assert not judge_settings(config, tmp_path).horde_safety


@pytest.mark.parametrize("safety", ["best_effort", ""])
def test_a_horde_on_this_machine_asks_for_no_checker(tmp_path: Path, safety: str):
    assert unfound(load_config(written(tmp_path, HERE, safety)), tmp_path) == ""


def test_a_checker_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch)
    put_weights(tmp_path / "models", monkeypatch)
    config = load_config(written(tmp_path, PUBLIC))
    assert unfound(config, tmp_path) == ""
    assert judge_settings(config, tmp_path).horde_safety


@pytest.mark.parametrize(
    ("safety", "verdict"), [("", Checked.failed), ("best_effort", Checked.warning)]
)
def test_check_says_so_loudly(tmp_path: Path, safety: str, verdict: Checked):
    found = findings(tmp_path, written(tmp_path, PUBLIC, safety))
    finding = next(each for each in found if each.name == "safety")
    assert finding.verdict is verdict
    assert "1.6 GB of weights" in finding.detail
    assert "./update-runtime.sh --safety" in finding.remedy
