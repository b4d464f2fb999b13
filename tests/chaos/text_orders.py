"""Texts that the clients ask for beside pictures, and a text server that fails now and then."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from aiohttp import web

from tests.support.text_servers import KoboldServer, pieces, streamed
from worker.sandbox import TextEntry

SCRIBE = "tester's scribe"
FAILING = 0.15  # of the texts


@dataclass(frozen=True, slots=True)
class TextOrder:
    """One request for `images` texts, as all that is asked for is counted."""

    path: ClassVar[str] = "generate/text"
    prompt: str
    images: int

    def body(self) -> dict[str, object]:
        params = {"n": self.images, "max_length": 80}
        return {"prompt": self.prompt, "params": params, "validated_backends": False}


def order(draw: random.Random) -> TextOrder:
    return TextOrder(f"{{{{[INPUT]}}}} number {draw.getrandbits(40)}", draw.randint(1, 3))


def keys(url: str) -> str:
    """For bridgeData.yaml, with the address of the text server."""
    return f'scribe_name: "{SCRIBE}"\ntext_backend: "{url}"\ntext_threads: 2\n'


def complaint(text: TextEntry) -> str:
    """What is wrong with a text that was delivered; "" for nothing."""
    expected = written(text.model, text.prompt)
    return "" if text.text == expected else f"{text.text!r} instead of {expected!r}"


def written(model: str, prompt: str) -> str:
    return f" {model} writes of {prompt} as long as it wants to."


class ShakyServer(KoboldServer):
    """Each text says which model wrote it. Until `is_good`, some are none."""

    def __init__(self, draw: random.Random):
        super().__init__(model=self._name(0), instead=self._write)
        self._draw = draw
        self._models = 0
        self.is_good = False

    @staticmethod
    def _name(number: int) -> str:
        return f"koboldcpp/Model-{number}"

    def load_another_model(self) -> None:
        self._models += 1
        self.model = self._name(self._models)

    async def _write(self, request: web.Request) -> web.StreamResponse:
        whole = pieces(written(self.model, (await request.json())["prompt"]))
        if self.is_gone and request.transport is not None:
            request.transport.abort()
        if self.is_good or self._draw.random() > FAILING:
            return await streamed(request, *whole)
        match self._draw.choice(("HTML", "busy", "short", "cut", "no text")):
            case "HTML":
                return web.Response(text="<h1>Bad gateway</h1>", content_type="text/html")
            case "busy":
                return web.json_response({"detail": "busy"}, status=503)
            case "short":
                return await streamed(request, *whole[:-2])
            case "cut":
                return await streamed(request, *whole[:2], ends=False)
            case _:
                return await streamed(request, {"token": 5})
