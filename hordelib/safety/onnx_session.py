"""Opens networks in the ONNX format with onnxruntime, on the CPU, and keeps it to itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def turn_telemetry_off() -> None:
    """Call it before onnxruntime is imported by anybody: it reads the variable only then.

    Otherwise its Linux builds, from 1.24 on, write an identifier of this machine and a database
    into the owner's ~/.cache, and report to their maker. Its function for that, which can be called
    after the import only, leaves both files behind.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def open_session(file: Path, *, threads: int = 0) -> InferenceSession:
    """The network in `file`; it computes with `threads` threads, 0 for one a core.

    Raises what onnxruntime raises: its errors have no common base.
    """
    turn_telemetry_off()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning take whole cores from the engine between two pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        file, sess_options=options, providers=["CPUExecutionProvider"]
    )
