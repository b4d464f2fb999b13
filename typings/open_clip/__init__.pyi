from collections.abc import Callable

from torch import Tensor, nn

class Vision(nn.Module):
    image_size: int | tuple[int, int]

class CLIP(nn.Module):
    visual: Vision
    positional_embedding: nn.Parameter
    attn_mask: Tensor
    def encode_image(self, image: Tensor) -> Tensor: ...
    def encode_text(self, text: Tensor) -> Tensor: ...

def load_openai_model(
    name: str, precision: str | None = None, device: str | None = None
) -> CLIP: ...
def get_tokenizer(model_name: str) -> Callable[[list[str]], Tensor]: ...
