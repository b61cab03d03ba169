"""The network: whisper's architecture and names of weights, with the attention of some heads shown.

In plain PyTorch because transformers' own takes thirty seconds of sound and nothing shorter, and so costs six times as
much to train. `export.py` puts these weights into transformers' model.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gallery.conch.features import MELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    width: int = 96
    heads: int = 3
    feed_forward: int = 384
    encoder_layers: int = 3
    decoder_layers: int = 2
    positions: int = 1500
    """Of 20 ms: faster-whisper always gives 30 seconds, silence after what there is."""
    tokens: int = 448


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._heads = shape.heads
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, of: Tensor, causal: bool = False) -> Tensor:
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(of)), self._split(self.v_proj(of))
        heard = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(heard.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def first_head(self, x: Tensor, of: Tensor) -> Tensor:
        """[batch, len(x), len(of)]: the logarithms of what the first head attends to."""
        q, k = self._split(self.q_proj(x))[:, 0], self._split(self.k_proj(of))[:, 0]
        return (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).float().log_softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)


class Layer(nn.Module):
    def __init__(self, shape: Shape, decodes: bool) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width)
        if decodes:
            self.encoder_attn = Attention(shape)
            self.encoder_attn_layer_norm = nn.LayerNorm(shape.width)
        self.fc1 = nn.Linear(shape.width, shape.feed_forward)
        self.fc2 = nn.Linear(shape.feed_forward, shape.width)
        self.final_layer_norm = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor, heard: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The new hidden state, and in a decoder what the first head attends to."""
        normal = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normal, normal, causal=heard is not None)
        attended = None
        if heard is not None:
            normal = self.encoder_attn_layer_norm(x)
            x = x + self.encoder_attn(normal, heard)
            attended = self.encoder_attn.first_head(normal, heard)
        return x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x)))), attended


class Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(shape.positions, shape.width)
        self.embed_positions.weight.requires_grad_(False).copy_(sinusoids(shape.positions, shape.width))
        self.layers = nn.ModuleList(Layer(shape, decodes=False) for _ in range(shape.encoder_layers))
        self.layer_norm = nn.LayerNorm(shape.width)

    def forward(self, mel: Tensor) -> Tensor:
        x = functional.gelu(self.conv1(mel))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x, _ = layer(x)
        return self.layer_norm(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.embed_positions = nn.Embedding(shape.tokens, shape.width)
        for table in (self.embed_tokens, self.embed_positions):
            nn.init.normal_(table.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(shape, decodes=True) for _ in range(shape.decoder_layers))
        self.layer_norm = nn.LayerNorm(shape.width)

    def forward(self, tokens: Tensor, heard: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        shown = []
        for layer in self.layers:
            x, attended = layer(x, heard)
            shown.append(attended)
        return functional.linear(self.layer_norm(x), self.embed_tokens.weight), shown


class Network(nn.Module):
    """[batch, MELS, frames] and [batch, tokens] to logits, and to what the first heads attend to, per layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)

    def forward(self, mel: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, shown = self.decoder(tokens, self.encoder(mel))
        return logits, shown


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's position encoding."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
