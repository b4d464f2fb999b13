"""Pictures on disk with a page that shows them all: no script, no network, any browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: `file` holds a WebP or SVG; `label` says what it is there to show."""

    label: str
    prompt: str
    settings: str
    seed: int | None  # None: of a form, which has none
    file: bytes
    suffix: str = "webp"


@dataclass(frozen=True, slots=True)
class ShownText:
    """One text, and who wrote it."""

    label: str
    prompt: str
    text: str
    written_by: str


def write_contact_sheet(
    folder: Path, shots: Sequence[Shot], remark: str = "", texts: Sequence[ShownText] = ()
) -> Path:
    """Write the pictures and the page into `folder`; the page's path. `remark` ends the page.

    Pictures of an earlier sheet go. Raises OSError where the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.webp"), *folder.glob("*.svg")):
        old.unlink()
    figures: list[str] = []
    for number, shot in enumerate(shots, start=1):
        seed = "form" if shot.seed is None else shot.seed
        name = f"{number:02}-{_slug(shot.label or shot.prompt)}-{seed}.{shot.suffix}"
        (folder / name).write_bytes(shot.file)
        figures.append(_figure(name, shot))
    figures += map(_text_figure, texts)
    page = folder / PAGE
    page.write_text(
        _PAGE.substitute(count=len(shots), figures="\n".join(figures), remark=escape(remark)),
        "utf-8",
    )
    return page


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]


def _figure(name: str, shot: Shot) -> str:
    return _FIGURE.substitute(
        name=escape(name),
        label=f"<i>{escape(shot.label)}</i><br>" if shot.label else "",
        prompt=escape(shot.prompt),
        seed="" if shot.seed is None else f"seed {shot.seed}<br>",
        settings=escape(shot.settings),
    )


def _text_figure(shown: ShownText) -> str:
    return _TEXT.substitute(
        label=escape(shown.label),
        prompt=escape(shown.prompt),
        text=escape(shown.text),
        written_by=escape(shown.written_by),
    )


_FIGURE = Template(
    """<figure><a href="$name"><img src="$name" alt="$prompt"></a>
<figcaption>$label<b>$prompt</b>$seed$settings</figcaption></figure>"""
)

_TEXT = Template(
    """<figure><p><q>$prompt</q>$text</p>
<figcaption><i>$label</i><br>$written_by</figcaption></figure>"""
)

_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Dreamer: $count pictures</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; background: #16181d; color: #e6e6e6 }
main { display: grid; grid-template-columns: repeat(auto-fill, 16rem); gap: 1.5rem }
figure { margin: 0; background: #22252c; border-radius: .5rem; overflow: hidden }
img { display: block; width: 16rem; height: 16rem; object-fit: contain }
figure p { margin: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
q { color: #fff; quotes: none }
figcaption { padding: .6rem .8rem; color: #a8adb8; font-size: .85rem }
b { color: #fff; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4;
    overflow: hidden; overflow-wrap: anywhere }
i { color: #8fd0ff; font-style: normal }
</style></head>
<body><h1>$count pictures by Dreamer</h1>
<main>
$figures
</main><p>$remark</p></body></html>
"""
)
