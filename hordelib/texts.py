"""Texts of strangers that must stay what they are, and can do no harm where they are shown."""

from __future__ import annotations

import re

# Control characters, ends of lines, marks that turn the direction of writing, and halves of
# characters, which can't be printed.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(name: str) -> str:
    r"""A name that is compared, or goes back to who sent it: it keeps its spaces of all kinds, and
    what joins its letters. Only what moves a terminal's cursor or turns the line becomes a space.

    >>> harmless("Mon\u00a0modèle \x1b[2J") == "Mon\u00a0modèle  [2J"
    True
    """
    return _HARMFUL.sub(" ", name)
