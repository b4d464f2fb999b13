"""Which errors are the device's, who is to blame for each, and what is told."""

from __future__ import annotations

import pickle

import pytest
import torch

from hordelib.comfyui.device import Device
from hordelib.comfyui.device_faults import TABLE, Culprit, device_trouble
from hordelib.errors import DeviceFault, DeviceUnusable, EngineError, OutOfMemory

KINDS = {
    Culprit.size: OutOfMemory,
    Culprit.driver: DeviceUnusable,
    Culprit.card: DeviceFault,
    Culprit.model: EngineError,
}
NO_KERNELS = "CUDA error: no kernel image is available for execution on the device"
# As torch and CUDA's libraries word them.
ERRORS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Culprit.size),
    (torch.AcceleratorError("CUDA error: out of memory\nSearch for"), Culprit.size),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Culprit.size),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        Culprit.size,
    ),
    (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        Culprit.size,
    ),
    (MemoryError(), Culprit.size),
    (torch.AcceleratorError(NO_KERNELS), Culprit.driver),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ARCH_MISMATCH"), Culprit.driver),
    (
        RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
        Culprit.driver,
    ),
    (
        RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
        Culprit.driver,
    ),
    (torch.AcceleratorError("CUDA error: device-side assert triggered"), Culprit.model),
    (
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        Culprit.model,
    ),
    (torch.AcceleratorError("CUDA error: unspecified launch failure"), Culprit.card),
    (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), Culprit.card),
    (torch.AcceleratorError("words that nobody knows"), Culprit.card),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Culprit.card),
]


@pytest.mark.parametrize(("error", "culprit"), ERRORS, ids=lambda value: str(value)[:40])
def test_an_error_of_the_device_says_who_is_to_blame(error: Exception, culprit: Culprit):
    raised = device_trouble("sampler", error)
    assert type(raised) is KINDS[culprit]
    assert "sampler" in str(raised)
    assert (str(error).splitlines() or ["MemoryError"])[0] in str(raised)
    again = pickle.loads(pickle.dumps(raised))  # as it reaches the bridge
    assert (type(again), str(again)) == (type(raised), str(raised))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes (3, 4) and (5, 6) differ"), KeyError("cuda"), None]
)
def test_an_error_of_a_job_is_none_of_the_device(error: Exception | None):
    assert device_trouble("sampler", error) is None


def test_a_device_that_computes_nothing_is_refused_at_the_start_with_its_remedy():
    """No driver, or no such card: the real torch says so, here and on a machine with cards."""
    with pytest.raises(DeviceUnusable, match="update the NVIDIA driver"):
        Device("cuda:99").insist_on_kernels()
    Device("cpu").insist_on_kernels()


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (torch.AcceleratorError(NO_KERNELS), DeviceUnusable, "update-runtime.sh"),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceFault, "failed"),
        (ValueError("nothing of CUDA's"), EngineError, "cuda:0 does not compute: nothing of"),
    ],
)
def test_a_first_computation_that_fails_says_whose_fault_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], told: str
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(kind, match=told) as raised:
        Device("cuda:0").insist_on_kernels()
    assert type(raised.value) is kind


def test_whatever_an_owner_has_to_do_is_said():
    for row in TABLE:
        assert bool(row.remedy) == (row.culprit is Culprit.driver)
