"""The llama network in PyTorch, as small as it can be written.

Token ids in, hidden states out; `answers_loss` turns the ones that matter into a number.
Weights have the names the GGUF format gives them (`blk.0.attn_q`), so that the exporter has
nothing to translate but the order of rotary pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gallery.minnow.shape import Shape


class Block(nn.Module):
    """One layer: attention, then a gated feed-forward, each added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner = shape.width, shape.feed_forward
        self.heads = shape.heads
        self.epsilon = shape.norm_epsilon
        self.attn_norm = nn.Parameter(torch.ones(width))
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(width))
        self.ffn_gate = nn.Linear(width, inner, bias=False)
        self.ffn_up = nn.Linear(width, inner, bias=False)
        self.ffn_down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor | None) -> Tensor:
        x = x + self._attend(self._norm(x, self.attn_norm), cos, sin, seen)
        h = self._norm(x, self.ffn_norm)
        inner: Tensor = self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return x + inner

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight.to(x.dtype), self.epsilon)

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor | None) -> Tensor:
        rows, length, width = x.shape
        per_head = (rows, length, self.heads, width // self.heads)
        query = rotate(self.attn_q(x).view(per_head), cos, sin).transpose(1, 2)
        key = rotate(self.attn_k(x).view(per_head), cos, sin).transpose(1, 2)
        value = self.attn_v(x).view(per_head).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None)
        output: Tensor = self.attn_output(mixed.transpose(1, 2).reshape(rows, length, width))
        return output


class Network(nn.Module):
    """The whole model. Input and output embeddings are the same matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.width))
        self._initialise()

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Hidden states after the last layer, normed: (rows, length, width).

        With `documents`, tokens see only those before them with the same number.
        """
        x = self.token_embd(tokens)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        cos, sin = rotary_tables(self.shape, tokens.shape[1], x.dtype)
        seen = None if documents is None else visible(documents, x.dtype)
        for block in self.blk:
            x = block(x, cos, sin, seen)
        return functional.rms_norm(x, (self.shape.width,), self.output_norm.to(x.dtype), self.shape.norm_epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores for every token of the vocabulary."""
        return functional.linear(hidden, self.token_embd.weight)

    def answers_loss(self, tokens: Tensor, weights: Tensor, documents: Tensor | None) -> Tensor:
        """Weighted cross-entropy of each next token; most have no weight and cost nothing."""
        hidden = self(tokens[:, :-1], None if documents is None else documents[:, :-1])
        chosen = weights[:, 1:] > 0
        losses = functional.cross_entropy(self.logits(hidden[chosen]).float(), tokens[:, 1:][chosen], reduction="none")
        weight = weights[:, 1:][chosen]
        return (losses * weight).sum() / weight.sum()

    def _initialise(self) -> None:
        residual = 0.02 / (2 * self.shape.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                into_residual = "attn_output" in name or "ffn_down" in name
                nn.init.normal_(weight, std=residual if into_residual else 0.02)


def visible(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores: 0 where a token may look, minus infinity elsewhere."""
    length = documents.shape[1]
    allowed = documents[:, :, None] == documents[:, None, :]
    allowed &= torch.ones(length, length, dtype=torch.bool).tril()
    hidden = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, -torch.inf)
    return hidden[:, None]


def rotary_tables(shape: Shape, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines for every position: (length, 1, head width)."""
    pairs = torch.arange(0, shape.head_width, 2) / shape.head_width
    angles = torch.outer(torch.arange(length).float(), shape.rope_base**-pairs)
    both = torch.cat((angles, angles), dim=-1)[:, None, :]
    return both.cos().to(dtype), both.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + half) by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
