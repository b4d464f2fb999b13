"""The cards that `devices` names, and what differs from card to card."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr

from worker.config.values import CARD_RESERVE, CardReserve, SingleModel, expects, whole

MOST_CARDS: Final = 64
_CARD: Final = re.compile(r"\d{1,2}(:\d)?|(GPU|MIG)-[0-9A-Za-z/-]{4,100}")


def _card(value: object) -> str:
    text = str(value).strip() if isinstance(value, (int, str)) else ""
    if isinstance(value, bool) or not _CARD.fullmatch(text):
        raise ValueError
    return text


def _cards(value: Any) -> tuple[Any, ...]:
    """`all` names none; a card that differs in nothing is its number or UUID alone."""
    if isinstance(value, str) and value.strip().lower() == "all":
        return ()
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    entries: list[Any] = [*value]
    return tuple({"card": each} if isinstance(each, int | str) else each for each in entries)


class CardKeys(BaseModel):
    """One card; what is not set is as for all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    card: Annotated[
        StrictStr,
        BeforeValidator(_card),
        expects("a card's number as nvidia-smi has it, such as 0, or its UUID"),
    ]
    name: Annotated[
        StrictStr | None, expects("1 to 40 characters", min_length=1, max_length=40)
    ] = None
    max_power: Annotated[StrictInt | None, whole(1, 512)] = None
    max_batch: Annotated[StrictInt | None, whole(1, 20)] = None
    vram_to_leave_free: Annotated[CardReserve | None, expects(CARD_RESERVE)] = None
    models_to_load: Annotated[
        tuple[SingleModel, ...], expects("a list of names of models, without groups")
    ] = ()

    @property
    def changes(self) -> dict[str, Any]:
        """What the keys of the same name are for this card."""
        names = ("max_power", "max_batch", "vram_to_leave_free")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


Cards = Annotated[tuple[CardKeys, ...], Field(max_length=MOST_CARDS), BeforeValidator(_cards)]
