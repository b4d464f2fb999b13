import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, dia_array

def cg(
    A: csr_array,
    b: NDArray[np.float64],
    x0: NDArray[np.float64],
    *,
    rtol: float,
    maxiter: int,
    M: dia_array,
) -> tuple[NDArray[np.float64], int]: ...
