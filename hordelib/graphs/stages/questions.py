"""Questions about pictures: networks that answer in words or a number."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hordelib.errors import InvalidParams
from hordelib.graph import Graph, Link
from hordelib.job.batching import Member, source_name
from hordelib.job.params import FromImage, GenerationParams
from hordelib.job.questions import Question, Topic

Named = Iterable[tuple[str, str]]  # names and digests of pictures


def answer(params: GenerationParams, question: Question) -> Graph:
    """The graph that answers a question about the source, and makes no picture."""
    if not isinstance(params.source, FromImage):
        raise InvalidParams("question", question.topic, "a source image")
    pictures = json.dumps([("source", params.source.image.digest)])
    graph = Graph()
    if question.topic is Topic.caption:
        captioner = _add_reader(graph, "captioner", question.network)
        graph.add("output", "DreamerCaption", captioner=captioner, pictures=pictures)
    else:
        clip = _add_reader(graph, "clip", question.network)
        asked = _add_judge(graph, question)
        graph.add("output", "DreamerClipAnswer", clip=clip, asked=asked, pictures=pictures)
    return graph


def answer_together(graph: Graph, members: Iterable[Member]) -> None:
    """Ask the question of the first member about the pictures of all."""
    pictures = [
        (source_name(i), member.params.source.image.digest)
        for i, member in enumerate(members)
        if isinstance(member.params.source, FromImage)
    ]
    graph.set("output", pictures=json.dumps(pictures))


def score(graph: Graph, question: Question) -> None:
    """Have whatever `output` reads scored. To come after post-processing."""
    pictures = graph.inputs("output")["images"]
    clip = _add_reader(graph, "clip", question.network)
    asked = _add_judge(graph, question)
    graph.add("scored", "DreamerAestheticScore", images=pictures, clip=clip, asked=asked)
    graph.set("output", images=Link("scored", 0))


def _add_judge(graph: Graph, question: Question) -> Link:
    if question.topic is Topic.interrogation:
        return _add_reader(graph, "words", question.network)
    return _add_reader(graph, "aesthetic_head", question.head)


def _add_reader(graph: Graph, reader: str, weights: Path) -> Link:
    graph.add(reader, "DreamerPictureReader", weights=str(weights), reader=reader)
    return Link(reader, 0)
