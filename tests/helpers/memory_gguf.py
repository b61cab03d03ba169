"""Tiny random models whose memory is not a plain cache of keys and values.

* mamba: recurrent; a sequence is one state that moves on and cannot be cut
* jamba: hybrid; recurrent layers beside attention
* gemma3: attention through a sliding window in five of six layers
* gpt-oss: attention through a sliding window in every other layer, with sinks, and experts
"""

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from tests.helpers.tiny_gguf import add_vocabulary, finish

ARCHITECTURES = ("mamba", "jamba", "gemma3", "gpt-oss")

_WINDOWED = ("gemma3", "gpt-oss")

WINDOW = 24
"""Tokens that sliding layers look back."""

_WIDTH = 32
_HEADS = 2
_STATE, _KERNEL, _RANK = 8, 4, 4
_EXPERTS = 2


def write_memory_model(path: Path, architecture: str, *, context: int = 512, seed: int = 0) -> Path:
    """A model of one of `ARCHITECTURES`."""
    return _Writer(path, architecture, context, seed).write()


class _Writer:
    def __init__(self, path: Path, architecture: str, context: int, seed: int) -> None:
        self._path = path
        self._architecture = architecture
        self._random = np.random.default_rng(seed)
        self._writer = writer = gguf.GGUFWriter(path, architecture)
        self._layers = 6 if architecture == "gemma3" else 2
        writer.add_name(architecture)
        writer.add_block_count(self._layers)
        writer.add_context_length(context)
        writer.add_embedding_length(_WIDTH)
        writer.add_feed_forward_length(0 if architecture == "mamba" else 2 * _WIDTH)
        writer.add_layer_norm_rms_eps(1e-5)
        self._vocabulary = add_vocabulary(writer)
        if architecture in ("mamba", "jamba"):
            writer.add_ssm_conv_kernel(_KERNEL)
            writer.add_ssm_inner_size(2 * _WIDTH)
            writer.add_ssm_state_size(_STATE)
            writer.add_ssm_time_step_rank(_RANK)
        if architecture != "mamba":
            writer.add_head_count(_HEADS)
            writer.add_head_count_kv([0, _HEADS] if architecture == "jamba" else _HEADS)
        if architecture == "gpt-oss":
            writer.add_expert_count(_EXPERTS)
            writer.add_expert_used_count(1)
            writer.add_expert_feed_forward_length(_WIDTH)
            writer.add_rope_dimension_count(_WIDTH // _HEADS)
        if architecture in _WINDOWED:
            writer.add_key_length(_WIDTH // _HEADS)
            writer.add_value_length(_WIDTH // _HEADS)
            writer.add_sliding_window(WINDOW)
            writer.add_rope_freq_base(1e6)

    def write(self) -> Path:
        self._matrix("token_embd", self._vocabulary, _WIDTH)
        self._matrix("output", self._vocabulary, _WIDTH, scale=4)
        self._ones("output_norm", _WIDTH)
        for layer in range(self._layers):
            block = f"blk.{layer}."
            self._ones(block + "attn_norm", _WIDTH)
            if self._architecture == "mamba" or (self._architecture == "jamba" and layer == 0):
                self._recurrent(block)
            else:
                for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                    self._matrix(block + name, _WIDTH, _WIDTH, scale=2)
            if self._architecture == "gemma3":
                for name in ("post_attention_norm", "post_ffw_norm"):
                    # Damped: rounding is not to grow from layer to layer until it decides what is said.
                    self._floats(f"{block}{name}.weight", np.full(_WIDTH, 0.5))
                for name in ("attn_q_norm", "attn_k_norm"):
                    self._ones(block + name, _WIDTH // _HEADS)
            if self._architecture == "gpt-oss":
                self._experts(block)
            elif self._architecture != "mamba":
                self._ones(block + "ffn_norm", _WIDTH)
                self._matrix(block + "ffn_gate", 2 * _WIDTH, _WIDTH, scale=2)
                self._matrix(block + "ffn_up", 2 * _WIDTH, _WIDTH, scale=2)
                self._matrix(block + "ffn_down", _WIDTH, 2 * _WIDTH, scale=2)
        finish(self._writer)
        return self._path

    def _experts(self, block: str) -> None:
        self._ones(block + "post_attention_norm", _WIDTH)
        self._floats(block + "attn_sinks.weight", np.zeros(_HEADS))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            self._zeros(f"{block}{name}.bias", _WIDTH)
        self._matrix(block + "ffn_gate_inp", _EXPERTS, _WIDTH)
        self._zeros(block + "ffn_gate_inp.bias", _EXPERTS)
        for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            values = self._random.standard_normal((_EXPERTS, _WIDTH, _WIDTH)) * _WIDTH**-0.5
            self._floats(f"{block}{name}.weight", values)
            self._floats(f"{block}{name}.bias", np.zeros((_EXPERTS, _WIDTH)))

    def _recurrent(self, block: str) -> None:
        inner = 2 * _WIDTH
        self._matrix(block + "ssm_in", 2 * inner, _WIDTH, scale=2)
        self._matrix(block + "ssm_x", _RANK + 2 * _STATE, inner)
        self._matrix(block + "ssm_dt", inner, _RANK, scale=0.5)
        self._matrix(block + "ssm_out", _WIDTH, inner, scale=1.0)
        self._floats(block + "ssm_conv1d.weight", self._random.standard_normal((inner, _KERNEL)))
        self._floats(block + "ssm_conv1d.bias", np.zeros(inner))
        self._floats(block + "ssm_dt.bias", np.full(inner, -3.0))
        # Small: what was read long ago still counts.
        self._floats(block + "ssm_a", -np.tile(np.arange(1, _STATE + 1) / 16, (inner, 1)))
        self._floats(block + "ssm_d", np.ones(inner))
        if self._architecture == "jamba":
            self._ones(block + "ssm_dt_norm", _RANK)
            self._ones(block + "ssm_b_norm", _STATE)
            self._ones(block + "ssm_c_norm", _STATE)

    def _matrix(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = self._random.standard_normal((rows, columns), dtype=np.float32) * scale * columns**-0.5
        self._writer.add_tensor(name + ".weight", values)

    def _zeros(self, name: str, width: int) -> None:
        self._floats(name, np.zeros(width))

    def _ones(self, name: str, width: int) -> None:
        self._floats(name + ".weight", np.ones(width))

    def _floats(self, name: str, values: npt.NDArray[np.float64]) -> None:
        self._writer.add_tensor(name, values.astype(np.float32))
