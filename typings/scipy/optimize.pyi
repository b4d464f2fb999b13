from numpy import float64
from numpy.typing import NDArray

def nnls(A: NDArray[float64], b: NDArray[float64]) -> tuple[NDArray[float64], float]: ...
