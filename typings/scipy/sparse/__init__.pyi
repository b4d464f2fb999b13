import numpy as np
from numpy.typing import NDArray

from . import linalg as linalg

class csr_array:
    def __init__(
        self,
        entries: tuple[
            NDArray[np.float64], tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]
        ],
        shape: tuple[int, int],
    ) -> None: ...
    def __getitem__(
        self, index: NDArray[np.bool_] | tuple[slice, NDArray[np.bool_]]
    ) -> csr_array: ...
    def __matmul__(self, vector: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def diagonal(self) -> NDArray[np.float64]: ...

class dia_array: ...

def diags_array(diagonals: NDArray[np.float64]) -> dia_array: ...
