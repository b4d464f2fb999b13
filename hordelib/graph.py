"""A ComfyUI graph under construction. Knows nodes and links, not what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self


class Link(NamedTuple):
    """One output of one node; ComfyUI writes it as `[node_id, slot]`."""

    node: str
    slot: int


Nodes = dict[str, dict[str, Any]]


class Graph:
    """Nodes by title, in ComfyUI's API format."""

    def __init__(self) -> None:
        self._nodes: Nodes = {}

    @classmethod
    def load(cls, spine: Path) -> Self:
        """A fresh graph from a spine in ComfyUI's API format, its nodes renamed to their titles.

        Raises ValueError where two nodes share a title: one of them would silently vanish.
        """
        exported = _exported(spine)
        titles = {node_id: node["_meta"]["title"] for node_id, node in exported.items()}
        if len(set(titles.values())) < len(titles):
            raise ValueError(f"{spine.name}: node titles are not unique: {sorted(titles.values())}")
        graph = cls()
        for node_id, node in exported.items():
            inputs = {name: _as_link(value, titles) for name, value in node["inputs"].items()}
            graph.add(titles[node_id], node["class_type"], **inputs)
        return graph

    def add(self, title: str, class_type: str, **inputs: Any) -> str:
        """Add a node under a new title and return that title."""
        if title in self._nodes:
            raise ValueError(f"graph already has a node titled {title!r}")
        self._nodes[title] = {"class_type": class_type, "inputs": inputs}
        return title

    def set(self, title: str, **inputs: Any) -> None:
        """Overwrite inputs that the node has; a misspelt name is a bug, not a new input."""
        node = self._nodes[title]
        unknown = inputs.keys() - node["inputs"].keys()
        if unknown:
            raise KeyError(f"{title} ({node['class_type']}) has no input {sorted(unknown)}")
        node["inputs"].update(inputs)

    def extend(self, title: str, **inputs: Any) -> None:
        """Give a node inputs that it does not need and may have."""
        self._nodes[title]["inputs"].update(inputs)

    def remove(self, title: str) -> None:
        """Take a node out; its readers keep their links, so another one has to take its title."""
        del self._nodes[title]

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    def inputs(self, title: str) -> dict[str, Any]:
        """A copy of a node's inputs."""
        return dict(self._nodes[title]["inputs"])

    def class_type(self, title: str) -> str:
        return self._nodes[title]["class_type"]

    def readers(self, link: Link) -> Iterator[tuple[str, str]]:
        """Every (title, input) that reads `link`."""
        for title, node in self._nodes.items():
            for name, value in node["inputs"].items():
                if value == link:
                    yield title, name

    def insert(self, after: Link, title: str, class_type: str, *, reads: str, **inputs: Any) -> str:
        """Put a node between `after` and all its readers; `reads` is its input for `after`.

        The new node's first output takes the place of `after`.
        """
        readers = list(self.readers(after))
        self.add(title, class_type, **{reads: after}, **inputs)
        for reader, name in readers:
            self._nodes[reader]["inputs"][name] = Link(title, 0)
        return title

    def substitute(self, classes: Mapping[str, str]) -> None:
        """Replace node classes by others with the same inputs and outputs."""
        for node in self._nodes.values():
            node["class_type"] = classes.get(node["class_type"], node["class_type"])

    def to_api(self) -> Nodes:
        """What ComfyUI executes: a copy, in plain JSON types."""
        return json.loads(json.dumps(self._nodes))


@cache
def _exported(spine: Path) -> Nodes:
    """A file of ours, which does not change: every job starts with one. Not to be changed."""
    return json.loads(spine.read_text("utf-8"))


def _as_link(value: Any, titles: Mapping[str, str]) -> Any:
    match value:
        case [str() as node, int() as slot] if node in titles:
            return Link(titles[node], slot)
        case _:
            return value
