"""Train minnow from nothing: `python -m gallery.minnow.train`.

Data, tokenizer and initial weights all follow from the seed, and so does every step; on
another machine, or with another number of threads, sums are rounded in another order and
the weights come out slightly different. Needs the `train` dependencies (PyTorch,
tokenizers, gguf) and, on two cores of 2024, less than an hour.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gallery.minnow.export import export
from gallery.minnow.network import Network
from gallery.minnow.rows import make_row
from gallery.minnow.schedule import BATCH_TOKENS, learning_rate, row_length
from gallery.minnow.shape import Shape
from gallery.minnow.tokenizer import train_tokenizer

STEPS = 3000
SEED = 7
CLIP = 1.0
MATRIX_RATE = 4e-3
OTHER_RATE = 4e-3
REPORT_EVERY = 25
EXPORT_EVERY = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to train, and where to put the result."""

    steps: int
    minutes: float
    """A limit, for machines slower than the one this was planned on: the schedule reaches
    its end at whichever comes first. Only a run that ends by steps can be repeated."""
    seed: int
    to: Path


def train(plan: Plan) -> None:
    """Train and export; the file at `plan.to` is usable long before the end."""
    torch.manual_seed(plan.seed)
    tokenizer = train_tokenizer(plan.seed)
    shape = Shape(vocabulary=tokenizer.get_vocab_size())
    network = Network(shape)
    optimizers = _optimizers(network)
    size = sum(weight.numel() for weight in network.parameters())
    print(f"{shape} {size / 1e6:.2f} M parameters", flush=True)

    rng = random.Random(plan.seed + 1)
    began = time.monotonic()
    recent: list[float] = []
    for step in range(1, plan.steps + 1):
        minutes = (time.monotonic() - began) / 60
        progress = max((step - 1) / plan.steps, minutes / plan.minutes)
        if progress >= 1:
            break
        length = row_length(rng, progress)
        recent.append(_step(network, optimizers, *_batch(rng, tokenizer, length), progress))
        if step % REPORT_EVERY == 0:
            loss = sum(recent) / len(recent)
            recent.clear()
            print(f"step {step} {minutes:.1f} min loss {loss:.4f} row {length}", flush=True)
        if step % EXPORT_EVERY == 0:
            export(plan.to, shape, network.state_dict(), tokenizer)
    export(plan.to, shape, network.state_dict(), tokenizer)
    print(f"done after {(time.monotonic() - began) / 60:.1f} min, {plan.to}", flush=True)


def _optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which learn to copy far sooner with it; AdamW for the rest."""
    matrices = [weight for weight in network.blk.parameters() if weight.ndim == 2]
    others = [w for w in network.parameters() if not any(w is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=OTHER_RATE, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def _batch(rng: random.Random, tokenizer: Tokenizer, length: int) -> tuple[Tensor, Tensor]:
    rows = [make_row(rng, tokenizer, length) for _ in range(BATCH_TOKENS // length)]
    return torch.tensor([r.tokens for r in rows]), torch.tensor([r.weights for r in rows])


def _step(
    network: Network,
    optimizers: list[torch.optim.Optimizer],
    tokens: Tensor,
    weights: Tensor,
    progress: float,
) -> float:
    for optimizer, peak in zip(optimizers, (MATRIX_RATE, OTHER_RATE), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * learning_rate(progress)
        optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.answers_loss(tokens, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m gallery.minnow.train", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=120, help="stop earlier than this")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("minnow.gguf"))
    arguments = parser.parse_args()
    return Plan(steps=arguments.steps, minutes=arguments.minutes, seed=arguments.seed, to=arguments.to)


if __name__ == "__main__":
    train(_plan())
