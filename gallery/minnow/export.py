"""Write the trained network as a GGUF file that any llama.cpp can load.

Weights are stored as 16-bit floats: small enough, and nothing is lost that training, done in
the same width, had put there. The tokenizer and the chat template go into the same file.
"""

import os
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from tokenizers import Tokenizer
from torch import Tensor

from gallery.minnow.shape import Shape
from gallery.minnow.template import template_source
from gallery.minnow.tokenizer import CONTROL, END, TURN_END, learnt, special_id

PRE_TOKENIZER = "qwen2"
"""llama.cpp's name for how `tokenizer.py` cuts text."""


def export(path: Path, shape: Shape, weights: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write the file, and put it in place only when it is complete."""
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    _describe(writer, shape)
    _add_tokenizer(writer, tokenizer)
    for name, weight in weights.items():
        _add_weight(writer, name, weight, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


def read_weights(path: Path, shape: Shape) -> dict[str, Tensor]:
    """The weights of an exported file, named and ordered as the network has them."""
    weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        weight = torch.tensor(tensor.data.astype(np.float32))
        if "attn_q" in tensor.name or "attn_k" in tensor.name:
            weight = halved(weight, shape.heads)
        is_norm = weight.ndim == 1
        weights[tensor.name.removesuffix(".weight") if is_norm else tensor.name] = weight
    return weights


def _describe(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_name("minnow")
    writer.add_description("Shoal's small built-in language model")
    writer.add_license("apache-2.0")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary, merges = learnt(tokenizer)
    by_id = tokenizer.get_vocab()
    tokens = sorted(by_id, key=by_id.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([_token_type(token, vocabulary) for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_eos_token_id(special_id(tokenizer, TURN_END))
    writer.add_pad_token_id(special_id(tokenizer, END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(template_source())


def _token_type(token: str, vocabulary: dict[str, int]) -> TokenType:
    if token in CONTROL:
        return TokenType.CONTROL
    return TokenType.NORMAL if token in vocabulary else TokenType.USER_DEFINED


def _add_weight(writer: GGUFWriter, name: str, weight: Tensor, shape: Shape) -> None:
    if "attn_q" in name or "attn_k" in name:
        weight = interleaved(weight, shape.heads)
    # Norms stay at 32 bits: llama.cpp multiplies by them at that width.
    is_matrix = weight.ndim == 2
    array = weight.to(torch.float32).numpy().astype(np.float16 if is_matrix else np.float32)
    stored = GGMLQuantizationType.F16 if is_matrix else GGMLQuantizationType.F32
    name = name if name.endswith(".weight") else f"{name}.weight"
    writer.add_tensor(name, array, raw_dtype=stored)


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Reorder rows from (i, i + half) pairs, as trained, to (2i, 2i + 1), as llama.cpp has them."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def halved(weight: Tensor, heads: int) -> Tensor:
    """The reverse of `interleaved`."""
    rows, columns = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
