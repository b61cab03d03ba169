"""Small GGUF models of random weights, and LoRA adapters for any GGUF model: what nobody ships so small.

A tiny model's vocabulary is every byte, a few words, and the control tokens asked for, so that any text can be
read and written; what it says is noise, the same noise every time.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

BEGIN, END = 1, 2
NORMAL, CONTROL, BYTE = 1, 3, 6


def write_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    context: int = 512,
    control: Sequence[str] = (),
    broken: Sequence[str] = (),
    cycle: str = "",
    **token_ids: int,
) -> Path:
    """A model with `control` tokens beside the usual ones, the first of them with id 3.
    The model computes NaN for every text with one of the `broken` characters in it.
    It says the letters of `cycle` round and round, whatever else it computes on the way.
    `token_ids` go into the header as `tokenizer.ggml.NAME_token_id`.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    vocabulary = add_vocabulary(writer, control)
    for name, number in token_ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0, nan: Sequence[int] = ()) -> NDArray[np.float16]:
        values = random.standard_normal((rows, columns), dtype=np.float32) * scale * columns**-0.5
        values[list(nan)] = np.nan
        writer.add_tensor(name, halves := values.astype(np.float16))
        return halves

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    first = 3 + len(control)
    embeddings = matrix("token_embd.weight", vocabulary, width, nan=[first + ord(letter) for letter in broken])
    if cycle:
        letters = [first + ord(letter) for letter in cycle]
        output = np.zeros_like(embeddings)
        output[[*letters[1:], letters[0]]] = embeddings[letters] * 4
        writer.add_tensor("output.weight", output)
    else:
        matrix("output.weight", vocabulary, width, scale=4)
    quiet = 0 if cycle else 2
    for layer in range(layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}{name}.weight", width, width, scale=quiet if name == "attn_output" else 2)
        matrix(block + "ffn_gate.weight", 2 * width, width, scale=2)
        matrix(block + "ffn_up.weight", 2 * width, width, scale=2)
        matrix(block + "ffn_down.weight", width, 2 * width, scale=quiet)
    ones("output_norm.weight")
    finish(writer)
    return path


def add_vocabulary(writer: gguf.GGUFWriter, control: Sequence[str] = ()) -> int:
    """Every byte, a few words and control tokens; returns how many tokens that are."""
    words = ["▁", "▁the", "▁a", "the", "re", "in"]
    tokens = ["<unk>", "<s>", "</s>", *control, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [2, CONTROL, CONTROL, *[CONTROL] * len(control), *[BYTE] * 256, *[NORMAL] * len(words)]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * (len(tokens) - len(words)) + [-float(i) for i in range(len(words))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    return len(tokens)


def write_lora(path: Path, base: Path | str, *, rank: int = 2, strength: float = 1.0, seed: int = 1) -> Path:
    """A random adapter for every feed-forward matrix of the model `base`."""
    writer = gguf.GGUFWriter(path, _architecture(base))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    random = np.random.default_rng(seed)
    for tensor in gguf.GGUFReader(base).tensors:
        if ".ffn_" in tensor.name and tensor.name.endswith(".weight") and "norm" not in tensor.name:
            columns, rows = (int(size) for size in tensor.shape)
            a = random.standard_normal((rank, columns), dtype=np.float32) * columns**-0.5
            b = random.standard_normal((rows, rank), dtype=np.float32) * strength
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
    finish(writer)
    return path


def _architecture(base: Path | str) -> str:
    field = gguf.GGUFReader(base).fields["general.architecture"]
    return bytes(field.parts[field.data[0]]).decode()


def finish(writer: gguf.GGUFWriter) -> None:
    """Write it all and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
