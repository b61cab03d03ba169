"""Tiny projectors (mmproj files) of random weights that fit minnow, so that tests run llama.cpp's own mtmd code.

    write_projector(path, "mlp")                LLaVA: a CLIP tower, square pictures of 16 patches, causal
    write_projector(path, "qwen2vl_merger")     Qwen2-VL: pictures of any shape; with `write_mrope_model`
    write_projector(path, "gemma3")             Gemma 3: SigLIP, pooled; its pictures are read non-causally
    write_projector(path, "ultravox")           a Whisper tower for sound

What they see means nothing, but differs from picture to picture and is the same each time.
"""

from pathlib import Path
from typing import Literal

import gguf
import numpy as np

MINNOW = Path(__file__).parents[2] / "gallery/minnow/minnow.gguf"
WIDTH = 192
"""Of minnow's embeddings."""

PATCH = 8
IMAGE_SIZE = 32
"""Pixels a side of what the fixed-size towers look at: 16 patches."""

Kind = Literal["mlp", "qwen2vl_merger", "gemma3", "ultravox"]

_TOWER, _HEADS, _FF, _LAYERS = 32, 2, 64, 2
_MEL_BINS, _FRAMES, _STACK = 80, 1500, 4


def write_projector(path: Path, kind: Kind, *, width: int = WIDTH, seed: int = 0) -> Path:
    """Write a projector for a text model with embeddings of `width`; returns `path`."""
    file = _File(path, seed)
    if kind == "ultravox":
        _sound(file, width)
    else:
        _vision(file, kind, width)
    file.write()
    return path


def write_mrope_model(path: Path) -> Path:
    """minnow's weights in a file that says "Qwen2-VL", whose positions have sections. It talks nonsense."""
    reader = gguf.GGUFReader(MINNOW)
    writer = gguf.GGUFWriter(path, "qwen2vl")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, sub_kind = field.types[0], field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name.replace("llama.", "qwen2vl."), field.contents(), kind, sub_type=sub_kind)
    writer.add_rope_dimension_sections([4, 6, 6, 0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    for block in range(6):
        for part in ("q", "k", "v"):
            writer.add_tensor(f"blk.{block}.attn_{part}.bias", np.zeros(WIDTH, np.float32))
    _finish(writer)
    return path


class _File:
    """A writer that draws the weights."""

    def __init__(self, path: Path, seed: int) -> None:
        self.writer = gguf.GGUFWriter(path, "clip")
        self._random = np.random.default_rng(seed)

    def matrix(self, name: str, *shape: int, scale: float = 0.0, half: bool = False) -> None:
        """Shape in numpy's order: outputs first."""
        values = self._random.standard_normal(shape, dtype=np.float32) * (scale or shape[-1] ** -0.5)
        self.writer.add_tensor(name, values.astype(np.float16 if half else np.float32))

    def norm(self, name: str, size: int, *, bias: bool = True) -> None:
        self.writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))
        if bias:
            self.zeros(f"{name}.bias", size)

    def zeros(self, name: str, *shape: int) -> None:
        self.writer.add_tensor(name, np.zeros(shape, np.float32))

    def tower(self, prefix: str, *, key_bias: bool = True) -> None:
        for i in range(_LAYERS):
            block = f"{prefix}.blk.{i}"
            self.norm(f"{block}.ln1", _TOWER)
            self.norm(f"{block}.ln2", _TOWER)
            for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.matrix(f"{block}.{part}.weight", _TOWER, _TOWER)
                if key_bias or part != "attn_k":
                    self.zeros(f"{block}.{part}.bias", _TOWER)
            self.matrix(f"{block}.ffn_up.weight", _FF, _TOWER)
            self.zeros(f"{block}.ffn_up.bias", _FF)
            self.matrix(f"{block}.ffn_down.weight", _TOWER, _FF)
            self.zeros(f"{block}.ffn_down.bias", _TOWER)

    def tower_facts(self, kind: str, width: int) -> None:
        writer = self.writer
        writer.add_uint32(f"clip.{kind}.embedding_length", _TOWER)
        writer.add_uint32(f"clip.{kind}.attention.head_count", _HEADS)
        writer.add_uint32(f"clip.{kind}.feed_forward_length", _FF)
        writer.add_uint32(f"clip.{kind}.block_count", _LAYERS)
        writer.add_uint32(f"clip.{kind}.projection_dim", width)
        writer.add_float32(f"clip.{kind}.attention.layer_norm_epsilon", 1e-5)

    def write(self) -> None:
        _finish(self.writer)


def _vision(file: _File, kind: Kind, width: int) -> None:
    writer = file.writer
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    file.tower_facts("vision", width)
    writer.add_uint32("clip.vision.image_size", IMAGE_SIZE)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    patches = (IMAGE_SIZE // PATCH) ** 2
    file.matrix("v.patch_embd.weight", _TOWER, 3, PATCH, PATCH, scale=0.2)
    file.tower("v")
    file.norm("v.post_ln", _TOWER)
    match kind:
        case "mlp":
            file.norm("v.pre_ln", _TOWER)
            file.matrix("v.class_embd", _TOWER)
            file.matrix("v.position_embd.weight", patches + 1, _TOWER)
            file.matrix("mm.0.weight", width, _TOWER)
            file.zeros("mm.0.bias", width)
            file.matrix("mm.2.weight", width, width)
            file.zeros("mm.2.bias", width)
        case "qwen2vl_merger":
            file.matrix("v.patch_embd.weight.1", _TOWER, 3, PATCH, PATCH, scale=0.2)
            file.matrix("mm.0.weight", 4 * _TOWER, 4 * _TOWER)
            file.zeros("mm.0.bias", 4 * _TOWER)
            file.matrix("mm.2.weight", width, 4 * _TOWER)
            file.zeros("mm.2.bias", width)
        case "gemma3":
            writer.add_uint32("clip.vision.projector.scale_factor", 2)
            file.matrix("v.position_embd.weight", patches, _TOWER)
            file.zeros("v.patch_embd.bias", _TOWER)
            file.norm("mm.soft_emb_norm", _TOWER, bias=False)
            file.matrix("mm.input_projection.weight", _TOWER, width, scale=0.2)


def _sound(file: _File, width: int) -> None:
    writer = file.writer
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.projector_type", "ultravox")
    file.tower_facts("audio", width)
    writer.add_uint32("clip.audio.num_mel_bins", _MEL_BINS)
    writer.add_uint32("clip.audio.projector.stack_factor", _STACK)
    file.matrix("a.conv1d.1.weight", _TOWER, _MEL_BINS, 3, scale=0.1, half=True)
    file.zeros("a.conv1d.1.bias", _TOWER, 1)
    file.matrix("a.conv1d.2.weight", _TOWER, _TOWER, 3, scale=0.1, half=True)
    file.zeros("a.conv1d.2.bias", _TOWER, 1)
    file.matrix("a.position_embd.weight", _FRAMES, _TOWER)
    file.tower("a", key_bias=False)
    file.norm("a.post_ln", _TOWER)
    stacked = _TOWER * _STACK
    file.norm("mm.a.norm_pre", stacked, bias=False)
    file.matrix("mm.a.mlp.1.weight", stacked, stacked)
    file.norm("mm.a.norm_mid", stacked // 2, bias=False)
    file.matrix("mm.a.mlp.2.weight", width, stacked // 2)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
