"""Train minnow from nothing: `python -m gallery.minnow.train`.

Data and initial weights follow from the seed, and so does every step; on another machine, or
with another number of threads, sums are rounded in another order and the weights come out
slightly different. Needs the `train` dependencies (PyTorch, tokenizers, gguf) and, on two
idle cores, less than an hour. The file is usable long before the end.

`--start FILE --stage NAME` goes on from an exported file with that stage.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gallery.minnow.export import export, read_weights
from gallery.minnow.network import Network
from gallery.minnow.rows import long_row, packed_row
from gallery.minnow.schedule import STAGES, Rows, Stage, steps
from gallery.minnow.shape import Shape
from gallery.minnow.tokenizer import load_tokenizer

SEED = 7
CLIP = 1.0
REPORT_EVERY = 25
EXPORT_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to train, from what, and where to put the result."""

    stages: tuple[Stage, ...]
    start: Path | None
    seed: int
    to: Path


def train(plan: Plan) -> None:
    """Go through the stages; export now and then, and at the end."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed + 1)
    tokenizer = load_tokenizer()
    network = Network(Shape(vocabulary=tokenizer.get_vocab_size()))
    if plan.start is not None:
        network.load_state_dict(read_weights(plan.start, network.shape))
    size = sum(weight.numel() for weight in network.parameters())
    print(f"{network.shape} {size / 1e6:.2f} M parameters", flush=True)

    optimizers = _optimizers(network)
    began = time.monotonic()
    losses: list[float] = []
    for step, (stage, rate) in enumerate(steps(plan.stages), start=1):
        batch = _batch(rng, tokenizer, stage.rows(rng))
        losses.append(_step(network, optimizers, batch, rate))
        if step % REPORT_EVERY == 0:
            minutes = (time.monotonic() - began) / 60
            loss = sum(losses) / len(losses)
            losses.clear()
            print(f"{stage.name} {step}: {minutes:.1f} min, loss {loss:.4f}", flush=True)
        if step % EXPORT_EVERY == 0:
            export(plan.to, network.shape, network.state_dict(), tokenizer)
    export(plan.to, network.shape, network.state_dict(), tokenizer)
    print(f"done after {(time.monotonic() - began) / 60:.1f} min: {plan.to}", flush=True)


def _optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, which learn to copy sooner with it; AdamW for the rest."""
    matrices = [weight for weight in network.blk.parameters() if weight.ndim == 2]
    others = [w for w in network.parameters() if not any(w is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def _batch(rng: random.Random, tokenizer: Tokenizer, wanted: Rows) -> tuple[Tensor, Tensor, Tensor | None]:
    make = packed_row if wanted.packed else long_row
    rows = [make(rng, tokenizer, wanted.length) for _ in range(wanted.count)]
    return (
        torch.tensor([row.tokens for row in rows]),
        torch.tensor([row.weights for row in rows]),
        # Without a mask attention is faster, and one conversation needs none.
        torch.tensor([row.documents for row in rows]) if wanted.packed else None,
    )


def _step(
    network: Network,
    optimizers: list[torch.optim.Optimizer],
    batch: tuple[Tensor, Tensor, Tensor | None],
    rate: float,
) -> float:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.answers_loss(*batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def _plan() -> Plan:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(prog="python -m gallery.minnow.train")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("minnow.gguf"))
    parser.add_argument("--start", type=Path, help="an exported file to go on from")
    parser.add_argument("--stage", choices=names, default=names[0], help="the first stage to do")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    return Plan(
        stages=STAGES[names.index(arguments.stage) :],
        start=arguments.start,
        seed=arguments.seed,
        to=arguments.to,
    )


if __name__ == "__main__":
    train(_plan())
