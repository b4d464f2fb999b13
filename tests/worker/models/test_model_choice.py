"""From the words of bridgeData.yaml to names of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PROJECT
from worker.config.values import is_word
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile
from worker.models.selection import (
    MOST_MODELS,
    STICKINESS,
    STYLES,
    WORDS,
    Candidates,
    choose,
    dynamic_choice,
)

SD1, SD2, SDXL = "stable diffusion 1", "stable diffusion 2", "stable_diffusion_xl"


def entry(name: str, baseline: str = SD1, style: str = "generalist", **about: bool):
    file = ReferenceFile(path=PurePosixPath(f"compvis/{name}"), url="https://host/x")
    return ReferenceEntry(
        name=name, kind=Kind.model, files=(file,), baseline=baseline, style=style, **about
    )


ENTRIES = (
    entry("Deliberate"),
    entry("Anything", style="anime", is_nsfw=True),
    entry("Furry Mix", style="furry", is_nsfw=True),
    entry("Painter", inpaints=True),
    entry("Illuminati", SD2, "artistic"),
    entry("AlbedoBase XL (SDXL)", SDXL),
    entry("Pony", SDXL, "anime", is_nsfw=True),
    entry("Flux", "flux_1"),
    entry("From The Future", ""),
)
USES = {"Pony": 900, "Flux": 800, "Deliberate": 700, "Anything": 600, "Not Known": 5000}
MARKET = Candidates(ENTRIES, USES)


def names(*wanted: str, skip: Sequence[str] = (), candidates: Candidates = MARKET) -> list[str]:
    choice = choose(wanted, skip, candidates)
    assert choice.problems == ()
    return list(choice.names)


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        ("top 2", ["Pony", "Deliberate"]),
        ("TOP 3 models", ["Pony", "Deliberate", "Anything"]),
        ("bottom 1", ["AlbedoBase XL (SDXL)"]),
        ("all", [e.name for e in ENTRIES[:7]]),
        ("ALL MODELS", [e.name for e in ENTRIES[:7]]),
        ("all sfw", ["Deliberate", "Painter", "Illuminati", "AlbedoBase XL (SDXL)"]),
        ("all nsfw models", ["Anything", "Furry Mix", "Pony"]),
        ("all inpainting", ["Painter"]),
        ("all sd15 model", ["Deliberate", "Anything", "Furry Mix", "Painter"]),
        ("all sd21", ["Illuminati"]),
        ("All SDXL Models", ["AlbedoBase XL (SDXL)", "Pony"]),
        ("all anime models", ["Anything", "Pony"]),
        ("all furry", ["Furry Mix"]),
        ("all realistic models", []),
    ],
)
def test_a_word_chooses_what_both_old_workers_meant_by_it(word: str, chosen: list[str]):
    assert names(word) == chosen


def test_names_and_words_keep_their_order_and_come_once():
    assert names("Deliberate", "top 2", "Flux", "Deliberate") == ["Deliberate", "Pony", "Flux"]


def test_large_models_come_by_name_or_where_the_owner_allows_words():
    large = replace(MARKET, with_large=True)
    assert names("top 2", candidates=large) == ["Pony", "Flux"]
    assert "Flux" in names("all", candidates=large)
    assert names("Flux") == ["Flux"]


def test_a_family_that_is_not_served_is_chosen_by_name_only():
    assert "From The Future" not in names("all", candidates=replace(MARKET, with_large=True))
    assert names("From The Future") == ["From The Future"]


def test_a_number_counts_after_the_skipped_are_gone():
    assert names("top 2", skip=["Pony"]) == ["Deliberate", "Anything"]
    assert names("top 1", skip=["all nsfw"]) == ["Deliberate"]
    assert names("all", skip=["all sd15", "top 1"]) == ["Illuminati", "AlbedoBase XL (SDXL)"]


def test_what_is_skipped_need_not_exist():
    assert names("Deliberate", skip=["pix2pix", "SDXL 1.0"]) == ["Deliberate"]


def test_an_own_file_is_as_good_as_a_row():
    assert names("Mine", candidates=replace(MARKET, own=frozenset({"Mine"}))) == ["Mine"]


@pytest.mark.parametrize(
    ("wanted", "skip", "problem"),
    [
        ("Delibrate", "", "models_to_load: 'Delibrate' is not in the model reference, and no "
         "file is called so; did you mean 'Deliberate'?"),
        ("albedobase xl", "", "did you mean 'AlbedoBase XL (SDXL)'?"),
        ("Zzz", "", "models_to_load: 'Zzz' is not in the model reference, and no file is called"),
        ("all aniem models", "", "'all aniem models' is no group of models; did you mean 'all "
         "anime models'? (groups: top 10, bottom 10, all models"),
        ("top", "", "'top' is no group of models"),
        ("top 0", "", "'top 0' is no group of models"),
        ("top -1", "", "'top -1' is no group of models"),
        ("top ten", "", "'top ten' is no group of models"),
        ("Deliberate", "all sdlx", "models_to_skip: 'all sdlx' is no group of models; did you "
         "mean 'all sdxl'?"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_told_with_what_to_write(wanted: str, skip: str, problem: str):
    (told,) = choose([wanted], [skip] if skip else [], MARKET).problems
    assert problem in told
    assert "\n" not in told


def test_without_the_hordes_numbers_only_the_counting_words_fail():
    choice = choose(["top 2", "all sdxl"], ["Pony"], replace(MARKET, uses=None))
    assert choice.names == ("AlbedoBase XL (SDXL)",)
    (problem,) = choice.problems
    assert problem.startswith("models_to_load: 'top 2' can't be counted")


def test_no_more_models_than_the_horde_takes():
    many = [entry(f"model {n}") for n in range(MOST_MODELS + 1)]
    choice = choose(["all"], [], Candidates(many, {}))
    assert len(choice.names) == MOST_MODELS
    assert "301 models" in choice.problems[0]


@pytest.mark.parametrize("name", [e.name for e in ENTRIES] + ["Topnotch", "Allegro", "top-model"])
def test_a_name_is_not_taken_for_a_word(name: str):
    assert not is_word(name)


def test_every_word_reads_what_it_shows():
    for word in WORDS:
        assert word.pattern.fullmatch(word.shown), word.shown
        assert is_word(word.shown)
    assert {f"all {style} models" for style in STYLES} <= {word.shown for word in WORDS}


def test_every_word_is_explained_to_owners():
    text = (PROJECT / "docs" / "models.md").read_text("utf-8")
    for word in WORDS:
        assert (
            word.shown.split()[1] in text if word.shown.startswith("all ") else word.shown in text
        )


ANY_WORDS = st.lists(
    st.sampled_from([word.shown for word in WORDS] + [e.name for e in ENTRIES]), max_size=5
)


@given(ANY_WORDS, ANY_WORDS, st.booleans())
def test_whatever_is_chosen_is_known_comes_once_and_is_not_skipped(
    wanted: list[str], skip: list[str], large: bool
):
    candidates = replace(MARKET, with_large=large)
    choice = choose(wanted, skip, candidates)
    skipped = choose(skip, [], candidates).names
    assert len(set(choice.names)) == len(choice.names)
    assert set(choice.names) <= {e.name for e in ENTRIES}
    assert not set(choice.names) & set(skipped)


@given(st.integers(1, 20))
def test_top_and_bottom_are_the_two_ends_of_one_order(count: int):
    assert names("top 20") == names("bottom 20")[::-1]
    assert names(f"top {count}") == names("top 20")[:count]


# ---- the horde's queues ----------------------------------------------------------------------

ALLOWED = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("queues", "held", "count", "chosen"),
    [
        ({"A": 1, "B": 3, "C": 2}, (), 2, ("B", "C")),
        ({"A": 1, "B": 3, "X": 90}, (), 2, ("B", "A")),
        ({"A": 10, "B": 19}, ("A",), 1, ("A",)),
        ({"A": 10, "B": 21}, ("A",), 1, ("B",)),
        ({}, ("A",), 1, ("A",)),
        ({"B": 1}, ("A",), 1, ("B",)),
        ({"B": 1}, ("A",), 2, ("B", "A")),
        ({}, (), 3, ()),
        ({"A": 5}, (), 0, ()),
    ],
)
def test_the_longest_queues_choose_and_what_is_offered_stays_a_while(
    queues: Mapping[str, float], held: tuple[str, ...], count: int, chosen: tuple[str, ...]
):
    assert dynamic_choice(queues, held, count, ALLOWED) == chosen


@given(
    st.dictionaries(st.sampled_from(ALLOWED), st.floats(0, 1e9)),
    st.dictionaries(st.sampled_from(ALLOWED), st.floats(1.0, STICKINESS * 0.99)),
    st.integers(1, 4),
)
def test_queues_that_change_by_less_than_the_stickiness_change_nothing(
    queues: dict[str, float], growth: dict[str, float], count: int
):
    chosen = dynamic_choice(queues, (), count, ALLOWED)
    later = {name: size * growth.get(name, 1.0) for name, size in queues.items()}
    assert set(dynamic_choice(later, chosen, count, ALLOWED)) == set(chosen)
