from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol

class CacheType(Enum):
    CLASSIC = 0

class CacheEntry(NamedTuple):
    ui: dict[str, Any] | None
    outputs: list[list[Any]]

class OutputCache(Protocol):
    def get(self, node_id: str) -> CacheEntry | None: ...

class CacheSet:
    outputs: OutputCache

class PromptExecutor:
    caches: CacheSet
    def __init__(
        self, server: object, cache_type: CacheType, cache_args: dict[str, int]
    ) -> None: ...
    handle_execution_error: Callable[..., None]
    def reset(self) -> None: ...
    async def execute_async(
        self, prompt: Any, prompt_id: str, extra_data: Any, execute_outputs: list[str]
    ) -> None: ...

get_output_data: Callable[..., Any]

async def validate_prompt(
    prompt_id: str, prompt: Any, partial_execution_list: list[str] | None
) -> tuple[bool, Any, list[str], Any]: ...
