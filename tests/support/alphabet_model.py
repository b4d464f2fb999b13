"""A language model that says the alphabet: " a" is followed by " b", and " z" by a new line.

It is a LLaMA whose layers add nothing: the embedding of a letter is a direction of its own, in
which the output finds the next one. So every server that computes it right writes the same text.
"""

from __future__ import annotations

import string
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, CONTEXT_LENGTH = 32, 512
_SURE = 10.0  # times the width of a direction: the only next token by far
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TOKENS = ["<unk>", "<s>", "</s>", *_BYTES, *(f"▁{letter}" for letter in string.ascii_lowercase)]
_TYPES = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
_CYCLE = [_TOKENS.index(each) for each in (*(f"▁{a}" for a in string.ascii_lowercase), "<0x0A>")]


def write_alphabet_model(file: Path) -> None:
    """A GGUF of about 100 KB."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("alphabet")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_TOKENS)
    writer.add_token_scores([-float(place) for place in range(len(_TOKENS))])
    writer.add_token_types([*_TYPES, *[gguf.TokenType.NORMAL] * len(string.ascii_lowercase)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, weights in _weights().items():
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights() -> dict[str, NDArray[np.float64]]:
    embedding, output = np.zeros((2, len(_TOKENS), WIDTH))
    for place, token in enumerate(_CYCLE):
        embedding[token, place] = 1
        output[_CYCLE[(place + 1) % len(_CYCLE)], place] = _SURE
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    square = {f"blk.0.{name}.weight": np.zeros((WIDTH, WIDTH)) for name in names}
    norms = ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")
    return {
        "token_embd.weight": embedding,
        "output.weight": output,
        **square,
        **{f"{name}.weight": np.ones(WIDTH) for name in norms},
    }
