"""What tests/support/llama_server.py uses of it."""

class _Model:
    path: str

class _Threads:
    n_threads: int

class CommonParams:
    model: _Model
    hostnames: list[str]
    port: int
    n_parallel: int
    n_ctx: int
    cpuparams: _Threads
    cpuparams_batch: _Threads
    warmup: bool

class Server:
    def __init__(self, params: CommonParams) -> None: ...
    @property
    def listening_address(self) -> str: ...
