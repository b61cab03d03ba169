"""A GGUF of random weights in the shape of Qwen2-0.5B: as fast as a trained one, and nobody has to download it.

Its vocabulary is made up too, and behaves like a real one of its size: byte-level BPE, in which every word of one to
three small letters with a space before it is one token.
"""

import os
import string
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

VOCABULARY = 151_936
LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN, CONTEXT = 24, 896, 14, 2, 4864, 32_768
Q4_0 = 2

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_model(path: Path) -> Path:
    """The quantized model at `path`, made there if it is missing (half a minute, and 1 GB for the while)."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    full, quantized = path.with_suffix(".f16"), path.with_suffix(".partial")
    try:
        _write(full)
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = Q4_0
        status = llama_cpp.llama_model_quantize(str(full).encode(), str(quantized).encode(), parameters)
        if status:
            raise RuntimeError(f"llama.cpp could not quantize {full} (status {status})")
        os.replace(quantized, path)
    finally:
        full.unlink(missing_ok=True)
    return path


def words(count: int, seed: int) -> str:
    """A text of `count` tokens; another seed gives another text from its first token on."""
    random = np.random.default_rng(seed)
    return "".join(" " + "".join(random.choice(list(string.ascii_lowercase), 3)) for _ in range(count))


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens, and the merges that make them of bytes."""
    letters = string.ascii_lowercase
    tokens = _byte_letters()
    merges = []
    for length in (1, 2, 3):
        for word in map("".join, product(letters, repeat=length)):
            tokens.append(f"Ġ{word}")
            merges.append(f"Ġ{word[:-1]} {word[-1]}")
    tokens += [f"word{number}" for number in range(VOCABULARY - len(tokens) - 3)]
    return [*tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>"], merges


def _byte_letters() -> list[str]:
    """How byte-level BPE writes the 256 bytes: printable ones as themselves, the others as letters from 256 on."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def _write(path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("random")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tokens, merges = _vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([*[gguf.TokenType.NORMAL] * (VOCABULARY - 3), *[gguf.TokenType.CONTROL] * 3])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
    for name, shape in _tensors():
        _add_random(writer, name, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors() -> list[tuple[str, Sequence[int]]]:
    keys = KV_HEADS * WIDTH // HEADS
    found: list[tuple[str, Sequence[int]]] = [
        ("token_embd.weight", (VOCABULARY, WIDTH)),
        ("output_norm.weight", (WIDTH,)),
    ]
    for layer in range(LAYERS):
        shapes: dict[str, Sequence[int]] = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (keys, WIDTH),
            "attn_v": (keys, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        found += [(f"blk.{layer}.{name}.weight", shape) for name, shape in shapes.items()]
    return found


def _add_random(writer: gguf.GGUFWriter, name: str, shape: Sequence[int]) -> None:
    if len(shape) == 1:
        writer.add_tensor(name, np.ones(shape, dtype=np.float32))
        return
    random = np.random.default_rng(len(writer.tensors[-1]))
    scale = 0.02 if name.startswith("token_embd") else shape[1] ** -0.5
    writer.add_tensor(name, (random.standard_normal(shape, dtype=np.float32) * scale).astype(np.float16))
