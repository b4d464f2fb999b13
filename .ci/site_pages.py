"""Pages of the site that are made of the code: MkDocs calls `on_files` before it builds."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from hordelib import __all__ as PUBLIC  # noqa: E402 - found by the line above
from worker.__main__ import make_parser  # noqa: E402
from worker.config.environment import variable  # noqa: E402
from worker.config.keys import EXPECTS, BridgeConfig  # noqa: E402

LINK = re.compile(r"\]\((?!https?://|#)([^)]+)\)")
OTHERS = {  # what the library's guide uses beside the names of `hordelib` itself
    "hordelib.errors": "what is raised",
    "hordelib.job.params": "what a picture is made of",
    "hordelib.job.samplers": "samplers and schedules",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and leaves out what only programs read."""
    address = f"{config.repo_url}/blob/main"
    pages = {
        "index.md": _of_root("README.md", address),
        "reference/changes.md": _of_root("CHANGELOG.md", address),
        "reference/keys.md": "\n".join(_keys()),
        "reference/commands.md": "\n".join(_commands()),
        "reference/library.md": "\n".join(_library()),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _of_root(name: str, address: str) -> str:
    """A page of the project's folder, with its links as they have to be among the docs."""

    def led(link: re.Match[str]) -> str:
        target = link[1]
        inside = target.startswith("docs/")
        return f"]({target.removeprefix('docs/') if inside else f'{address}/{target}'})"

    return LINK.sub(led, (PROJECT / name).read_text("utf-8"))


def _keys() -> Iterator[str]:
    yield "# Keys\n\nEach key of `bridgeData.yaml`, with its variable of the environment.\n"
    for key in EXPECTS:
        field = BridgeConfig.model_fields[key]
        yield f"## {key}\n"
        yield f"{field.description or ''}\n"
        yield f"Expected: {EXPECTS[key]}. Variable: `{variable(key)}`.\n"


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "`./horde-bridge.sh` in a clone, `dreamer` where it is installed as a package.\n"
    yield from _command(make_parser(), 2)


def _command(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    parser.formatter_class = _Wide
    yield f"{'#' * level} {parser.prog}\n\n```text\n{parser.format_help()}```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _command(command, level + 1)


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


def _library() -> Iterator[str]:
    yield "# Library\n\n[In your own program](../library.md) shows how these are used.\n"
    for name in PUBLIC:
        yield f"::: hordelib.{name}\n"
    for module, told in OTHERS.items():
        yield f"## {module}: {told}\n\n::: {module}\n    options:\n      heading_level: 3\n"
