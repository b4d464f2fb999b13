from collections.abc import Callable

from PIL.Image import Image
from torch import Tensor

def image_transform(
    image_size: int | tuple[int, int], is_train: bool
) -> Callable[[Image], Tensor]: ...
