"""The clients: they ask until they are heard, look after some requests, and cancel a few."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import requests

from tests.chaos.form_orders import FormOrder
from tests.chaos.orders import Order
from tests.chaos.text_orders import TextOrder
from tests.support.sandbox_client import CLIENT_KEY, Api
from worker.sandbox import Sandbox

PATIENCE_SECONDS = 120.0
CANCELLED, LOOKED_AFTER = 0.02, 0.1


class Customer:
    """Posts what `order` gives. The horde's books know what was heard of it.

    It waits, and calls `bear` meanwhile, where the horde has as many open requests as it takes.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        draw: random.Random,
        order: Callable[[], Order | FormOrder | TextOrder],
        bear: Callable[[], None] = lambda: None,
    ):
        self._api = Api(sandbox.url, CLIENT_KEY)
        self._draw = draw
        self._order = order
        self._bear = bear
        self._asked = 0

    def ask_for(self, images: int) -> None:
        """Go on asking until it were so many images, forms and texts in all."""
        while self._asked < images:
            order = self._order()
            reply = self._insist("POST", f"{order.path}/async", order.body())
            self._asked += order.images
            self._look_after(order.path, reply["id"])

    def close(self) -> None:
        self._api.http.close()

    def _look_after(self, path: str, id: str) -> None:
        drawn = self._draw.random()
        if drawn < CANCELLED:
            self._insist("DELETE", f"{path}/status/{id}")
        elif drawn < LOOKED_AFTER:
            self._insist("GET", f"{path}/{'check' if path == Order.path else 'status'}/{id}")

    def _insist(self, method: str, path: str, body: object = None) -> dict[str, str]:
        """Repeat a call until it is answered."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                reply = self._api.call(method, path, body)
                if reply.ok:
                    return reply.json()
                told = f"{reply.status_code} {reply.text[:200]}"
            except requests.RequestException as error:
                told = str(error)
            assert time.monotonic() < until, f"{method} {path} has no other answer: {told}"
            self._bear()
            time.sleep(0.05)
