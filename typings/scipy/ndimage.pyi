import numpy as np
from numpy.typing import NDArray

def binary_erosion(
    input: NDArray[np.bool_], structure: NDArray[np.bool_], *, border_value: int
) -> NDArray[np.bool_]: ...
def binary_dilation(
    input: NDArray[np.bool_], structure: NDArray[np.bool_]
) -> NDArray[np.bool_]: ...
