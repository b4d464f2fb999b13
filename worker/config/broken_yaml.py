"""What is wrong with a file that is no YAML, in words for its owner, and in which line to look.

PyYAML tells where it could not go on, which is often lines after the mistake, in a parser's words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml


class Mistake(NamedTuple):
    """Counted from 1."""

    line: int
    column: int
    told: str


_OPEN_QUOTE = "a quote that is opened here is not closed in this line"
_NO_COLON = 'there is no colon after a key; write it as in "max_power: 8"'
_INDENTED = "the line is indented otherwise than those that it belongs to"
_TAB = "a tab; write spaces instead"

# By what PyYAML says of it. At the place where it could not go on:
_THERE = (
    ("cannot start any token", "a value that begins with a sign of YAML's; put it in quotes"),
    ("undefined alias", 'a value that begins with "*"; put it in quotes'),
    ("but found '<scalar>'", "more text after the value's last quote; put the whole in quotes"),
    ("expected <block end>", _INDENTED),
)
# Where what it was reading began:
_BEGAN = (
    ("quoted scalar", _OPEN_QUOTE),
    ("simple key", _NO_COLON),
    ("flow sequence", 'a list that is opened with "[" here is not closed'),
    ("flow mapping", 'a "{" that is opened here is not closed'),
)


def mistake_in(text: str, error: yaml.MarkedYAMLError) -> Mistake | None:
    """None where the parser names no place."""
    if (mark := error.problem_mark or error.context_mark) is None:
        return None
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line]:
        return _at(mark, _TAB)
    if (quote := _open_quote(text, mark.line)) is not None:
        return _at(quote, _OPEN_QUOTE)
    problem, context = error.problem or "", error.context or ""
    if "escape" in problem:
        return _at(mark, "a backslash in double quotes; use single quotes")
    if began := error.context_mark:
        for sign, told in _BEGAN:
            if sign in context:
                return _at(began, told)
    if "mapping values are not allowed" in problem:
        return _stray_colon(lines, mark)
    told = next((told for sign, told in _THERE if sign in problem), problem)
    return _at(mark, told)


def _at(mark: yaml.Mark, told: str) -> Mistake:
    return Mistake(mark.line + 1, mark.column + 1, told)


def _open_quote(text: str, last_line: int) -> yaml.Mark | None:
    """Where a text in quotes begins that goes on to another line, and ends where reading did."""
    try:
        for token in yaml.scan(text, yaml.SafeLoader):
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"'):
                start, end = token.start_mark, token.end_mark
                if start.line < end.line == last_line:
                    return start
    except yaml.MarkedYAMLError:
        return None
    return None


def _stray_colon(lines: list[str], mark: yaml.Mark) -> Mistake:
    """A second one in its line, or the first one after a line without any."""
    line = lines[mark.line]
    if len(re.findall(r":(?:\s|$)", line)) > 1:
        return _at(mark, "a second colon in one line; put the value in quotes")
    before = [(i, each) for i, each in enumerate(lines[: mark.line]) if each.strip()]
    if before and ":" not in before[-1][1]:
        number, text = before[-1]
        return Mistake(number + 1, len(text) - len(text.lstrip()) + 1, _NO_COLON)
    return Mistake(mark.line + 1, len(line) - len(line.lstrip()) + 1, _INDENTED)
