"""Prompts as clients write them: choices, textual inversions, triggers, and bounds."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hordelib.job.prompts import (
    DEEPEST_NESTING,
    LONGEST_PROMPT,
    LONGEST_WORD,
    PlacedTi,
    bound,
    choose_words,
    complete_prompts,
    pick_trigger,
    prepend_triggers,
    write_ti,
)
from tests.support.bounds import frugal
from tests.support.linear import MOST_GROWTH, growth

BRACES = st.text(alphabet="{}|\\ab ", max_size=40)


def choose(text: str, seed: int = 0) -> str:
    return choose_words(text, Random(seed))


def test_each_choice_is_made_about_equally_often():
    chosen = Counter(choose("a {red|green|blue} cat", seed) for seed in range(300))
    assert set(chosen) == {"a red cat", "a green cat", "a blue cat"}
    assert min(chosen.values()) > 60


def test_nested_choices_are_all_reached():
    chosen = {choose("{a|{b|{c|d}}} e", seed) for seed in range(100)}
    assert chosen == {"a e", "b e", "c e", "d e"}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("{red}", "red"),
        ("{}", "{}"),
        ("{|}", ""),
        ("a|b", "a|b"),
        ("{a|b", "{a|b"),
        ("a|b}", "a|b}"),
        ("}{", "}{"),
        ("{{a} b", "{a b"),
        (r"\{a|b\}", "{a|b}"),
        (r"{a\|b}", "a|b"),
        (r"\(a\) \\", r"\(a\) \\"),
        ("ends in \\", "ends in \\"),
    ],
)
def test_what_is_no_choice_stays_as_it_is(text: str, chosen: str):
    assert choose(text) == chosen


@given(BRACES, st.integers(0, 1 << 64))
@frugal
def test_the_same_seed_makes_the_same_choices_and_adds_nothing(text: str, seed: int):
    chosen = choose(text, seed)
    assert chosen == choose(text, seed)
    assert not Counter(chosen) - Counter(text)


@given(st.text(alphabet="ab(): ,", max_size=40))
def test_a_prompt_without_braces_is_not_touched(text: str):
    assert choose(text) == text


HOSTILE = (
    "{",
    "}",
    "{a|",
    "{|}",
    "{a}",
    r"\{",
    "(",
    "( ",
    ")(",
    ":",
    "a:1)",
    "embedding:a ",
    "e",
    " ",
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_prompts_are_read_in_a_time_that_grows_with_their_length(piece: str):
    def read(count: int) -> None:
        text = piece * count
        bound(choose(text))

    assert growth(read, 6_000) <= MOST_GROWTH


@pytest.mark.parametrize("inner", [r"\{" * 2, "a|b"])
def test_choices_that_are_nested_deep_take_a_time_that_grows_with_their_length(inner: str):
    def read(depth: int) -> None:
        choose("{" * depth + inner * depth + "}" * depth)

    assert growth(read, 6_000) <= MOST_GROWTH


def test_a_textual_inversion_comes_first_in_the_prompt_and_last_in_the_negative_one():
    assert write_ti("cat", "dog", PlacedTi("12", "prompt", 0.5)) == (
        "(embedding:12:0.5),cat",
        "dog",
    )
    assert write_ti("cat", "dog", PlacedTi("12", "negprompt")) == ("cat", "dog,(embedding:12:1)")
    assert write_ti("cat", "", PlacedTi("12", "negprompt", -1.5)) == ("cat", "(embedding:12:-1.5)")
    assert write_ti("cat", "dog", PlacedTi("12")) == ("cat", "dog")


TRIGGERS = ("Ohwx Style", "sks dog", "ohwx")


@pytest.mark.parametrize(
    ("wanted", "picked"),
    [
        ("all", "Ohwx Style, sks dog, ohwx"),
        ("OHWX", "ohwx"),
        ("style", "Ohwx Style"),
        ("sks dgo", "sks dog"),
        ("landscape", ""),
        ("", ""),
    ],
)
def test_a_trigger_is_found_by_word_then_by_part_then_by_spelling(wanted: str, picked: str):
    assert pick_trigger(wanted, TRIGGERS, Random(0)) == picked


def test_any_trigger_is_drawn_by_the_seed():
    drawn = [pick_trigger("any", TRIGGERS, Random(seed)) for seed in range(60)]
    assert set(drawn) == set(TRIGGERS)
    assert drawn == [pick_trigger("any", TRIGGERS, Random(seed)) for seed in range(60)]


def test_a_lora_without_triggers_injects_none():
    assert pick_trigger("any", (), Random(0)) == pick_trigger("all", (), Random(0)) == ""
    assert prepend_triggers("cat", ["", ""]) == "cat"


def test_choices_come_before_textual_inversions_and_those_before_triggers():
    tis = [PlacedTi("7", "prompt"), PlacedTi("8", "negprompt")]
    assert complete_prompts("{cat}", "{dog}", 1, tis, ["{x|y}"]) == (
        "{x|y}, (embedding:7:1),cat",
        "dog,(embedding:8:1)",
    )


def test_an_ordinary_prompt_is_within_the_bounds():
    text = "a (red:1.2) circle, ((very)) [blue] background, \\(plain\\)"
    assert bound(text) == (text, ())


def test_a_prompt_that_is_too_long_is_cut_and_said_so():
    text, changes = bound("word " * 10_000)
    assert len(text) == LONGEST_PROMPT
    assert changes == ("a prompt of 50000 characters was cut after 12000",)


def test_parentheses_that_are_nested_too_deep_are_left_out_and_said_so():
    text, changes = bound("(" * 500 + r"red \( (" + ")" * 501)
    assert text == "(" * DEEPEST_NESTING + r"red \( " + ")" * DEEPEST_NESTING
    assert changes == ("parentheses nested deeper than 30 were left out",)


@given(st.text(alphabet="()\\ a", max_size=200))
@frugal
def test_the_bounds_hold_for_every_text(text: str):
    bounded, _ = bound(text)
    assert bound(bounded)[0] == bounded
    assert not Counter(bounded) - Counter(text)


def test_an_endless_word_is_broken():
    longest = max(map(len, bound("x" * 5_000)[0].split()))
    assert longest == LONGEST_WORD
