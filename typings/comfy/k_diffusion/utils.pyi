from collections.abc import Callable

from torch import Tensor

append_dims: Callable[[Tensor, int], Tensor]
