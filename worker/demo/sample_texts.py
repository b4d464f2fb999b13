"""What the demo's client asks a scribe for, where the owner has a text server."""

from __future__ import annotations

from dataclasses import dataclass

from worker.demo.page import ShownText


@dataclass(frozen=True, slots=True)
class TextWish:
    """One text. `label` says what it is there to show."""

    prompt: str
    label: str

    def body(self) -> dict[str, object]:
        """The body of POST generate/text/async, for a server of any size that nobody validated."""
        params = {"max_length": 64, "max_context_length": 256}
        return {"prompt": self.prompt, "params": params, "validated_backends": False}

    def shown(self, text: str, model: str) -> ShownText:
        return ShownText(self.label, self.prompt, text, f"written by {model}")


TEXT_WISH = TextWish(
    "Once upon a time, a ring of orange light", "a scribe: a text of your own text server"
)
"""A prompt of a few tokens, so that any server has room for it."""
