"""What torch can do on its first card, as JSON: run as a file, in a process of its own.

A broken torch or driver can take its process down, or hang it. Needs torch alone.
"""

from __future__ import annotations

import json
from typing import Any


def main() -> None:
    import torch

    cuda: Any = torch.cuda  # its types are incomplete
    told: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "kernels": _kernels(torch),
        "error": "",
        "card": None,
    }
    try:
        if cuda.device_count():
            told["card"] = _card(cuda)
            _compute(torch)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what there is to tell
        told["error"] = str(error).strip().partition("\n")[0] or type(error).__name__
    print(json.dumps(told))


def _kernels(torch: Any) -> list[str]:
    """Such as sm_86: what this build was made for, also where there is no card."""
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()
    return flags.split() if flags else []


def _card(cuda: Any) -> dict[str, Any]:
    known = cuda.get_device_properties(0)
    free_bytes, total_bytes = cuda.mem_get_info(0)
    return {
        "name": known.name,
        "capability": [known.major, known.minor],
        "free_bytes": free_bytes,
        "memory_bytes": total_bytes,
    }


def _compute(torch: Any) -> None:
    """A kernel of torch's own, one of cuBLAS and one of cuDNN."""
    ones = torch.ones(1, 8, 8, 8, device="cuda:0")
    weights = torch.ones(8, 8, 3, 3, device="cuda:0")
    seen = (torch.nn.functional.conv2d(ones, weights).sum() + (ones[0] @ ones[0]).sum()).item()
    if seen != 8 * 6 * 6 * 8 * 9 + 8 * 8 * 8 * 8:
        raise ValueError(f"a small computation gives {seen}")


if __name__ == "__main__":
    main()
