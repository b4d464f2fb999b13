from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

class NodeArg:
    name: str
    shape: list[int | str | None]

class InferenceSession:
    def __init__(self, path_or_bytes: str | Path, *, providers: list[str]) -> None: ...
    def get_inputs(self) -> list[NodeArg]: ...
    def run(
        self, output_names: list[str] | None, input_feed: dict[str, NDArray[np.float32]]
    ) -> list[NDArray[Any]]: ...
