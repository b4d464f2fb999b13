"""What the host does beside a card: threads of Python's, and copies out of a mapped file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

LAUNCHES = 2000
SLOT_BYTES, SLOTS = 16 << 20, 8  # of the ring: 128 MiB that can't be used otherwise


def launch_us(device: str) -> float:
    """What the host needs to give one order, in microseconds."""
    small = torch.ones(64, device=device)
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        small.add_(1)
    return 1e6 * (time.perf_counter() - started) / LAUNCHES


@contextmanager
def busy_thread(interval_seconds: float) -> Generator[None]:
    """Beside a thread that computes in Python, with Python's switch interval as given."""
    was, ended = sys.getswitchinterval(), threading.Event()

    def compute() -> None:
        number = 0
        while not ended.is_set():
            number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=compute, daemon=True)
    sys.setswitchinterval(interval_seconds)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(was)


def ring_seconds(path: Path, size_bytes: int, threads: int, device: str) -> float:
    """To have a mapped file of so many bytes on a card, through pinned memory on a stream of its
    own, which so many threads fill."""
    if not path.exists():
        path.write_bytes(bytes(size_bytes))
    mapped: Any = torch.from_file(str(path), size=size_bytes, dtype=torch.uint8)
    slots = [torch.empty(SLOT_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(SLOTS)]
    into = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    cuda: Any = torch.cuda  # its types are incomplete
    stream = cuda.Stream(device)
    passed = [cuda.Event() for _ in slots]
    cuda.synchronize()
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:

        def fill(number: int) -> int:
            piece = mapped[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]
            passed[number % SLOTS].synchronize()
            slots[number % SLOTS][: len(piece)].copy_(piece)
            return len(piece)

        filling: list[Future[int]] = []
        pieces = -(-size_bytes // SLOT_BYTES)
        filling += [pool.submit(fill, number) for number in range(min(SLOTS, pieces))]
        for number in range(pieces):
            length, start = filling[number].result(), number * SLOT_BYTES
            with cuda.stream(stream):
                into[start : start + length].copy_(
                    slots[number % SLOTS][:length], non_blocking=True
                )
                passed[number % SLOTS].record(stream)
            if number + SLOTS < pieces:
                filling.append(pool.submit(fill, number + SLOTS))
    stream.synchronize()
    return time.perf_counter() - started
