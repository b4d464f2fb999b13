from torch import Tensor, nn

class CrossAttention(nn.Module):
    to_k: nn.Linear
    to_v: nn.Linear
    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        transformer_options: dict[str, object] = ...,
    ) -> Tensor: ...

class BasicTransformerBlock(nn.Module):
    attn2: CrossAttention | None
