from pathlib import Path
from typing import Any

def load(filename: str | Path) -> Any: ...
