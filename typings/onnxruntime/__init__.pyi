from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

class NodeArg:
    name: str
    shape: list[int | str | None]

class SessionOptions:
    intra_op_num_threads: int
    def add_session_config_entry(self, key: str, value: str) -> None: ...

class InferenceSession:
    def __init__(
        self,
        path_or_bytes: str | Path,
        sess_options: SessionOptions | None = None,
        *,
        providers: list[str],
    ) -> None: ...
    def get_inputs(self) -> list[NodeArg]: ...
    def get_session_options(self) -> SessionOptions: ...
    def run(
        self, output_names: list[str] | None, input_feed: dict[str, NDArray[np.float32]]
    ) -> list[NDArray[Any]]: ...
