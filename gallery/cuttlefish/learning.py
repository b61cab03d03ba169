"""What both trainings share: the rate along a half cosine, averaged weights, checkpoints to go on from."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn

WARM_UP_STEPS = 50
CLIP = 1.0
REPORT_EVERY = 20
KEEP_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long and how fast something is learnt."""

    steps: int
    batch: int
    rate: float
    decay: float
    """Of the averaged weights, which are those that ship."""


def learn(
    network: nn.Module, course: Course, checkpoint: Path, loss_of: Callable[[int], Tensor], keep: Callable[[], None]
) -> nn.Module:
    """Train `network` and return its averaged weights; goes on from the checkpoint, should there be one.

    Args:
        loss_of: the loss of a step.
        keep: called now and then, after a checkpoint.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01)
    average = copy.deepcopy(network).requires_grad_(False)
    done = _resume(checkpoint, network, average, optimizer)
    began, total = monotonic(), 0.0
    for step in range(done + 1, course.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _rate(course, step)
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        _follow(average, network, min(course.decay, (1 + step) / (10 + step)))
        total += loss.item() / REPORT_EVERY
        if step % REPORT_EVERY == 0:
            print(f"{checkpoint.name} {step}: {(monotonic() - began) / 60:.1f} min, loss {total:.4f}", flush=True)
            total = 0.0
        if step % KEEP_EVERY == 0 or step == course.steps:
            kept = {"step": step, "network": network.state_dict(), "average": average.state_dict()}
            torch.save(kept | {"optimizer": optimizer.state_dict()}, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
            for weight, mean in _pairs(network, average):
                weight.data, mean.data = mean.data, weight.data
            keep()
            for weight, mean in _pairs(network, average):
                weight.data, mean.data = mean.data, weight.data
    return average


def _rate(course: Course, step: int) -> float:
    return course.rate * min(1.0, step / WARM_UP_STEPS) * 0.5 * (1.01 + math.cos(math.pi * step / course.steps))


def _pairs(network: nn.Module, average: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    return zip(network.parameters(), average.parameters(), strict=True)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for weight, mean in _pairs(network, average):
        mean.lerp_(weight, 1 - decay)


def _resume(path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    kept = torch.load(path)
    network.load_state_dict(kept["network"])
    average.load_state_dict(kept["average"])
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["step"])
