"""Train conch from nothing: `python -m gallery.conch.train`.

Voices, noise and initial weights follow from the seed. On other machines sums are rounded in another order, so the
weights differ slightly; the exam says whether a new model is as good. Needs the `train` dependencies. A checkpoint
beside the model is gone on from, should there be one: delete it to begin anew.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from gallery.conch.export import export
from gallery.conch.features import MELS, features
from gallery.conch.lessons import Lesson, lesson
from gallery.conch.network import Network, Shape
from gallery.conch.schedule import STAGES, Stage, steps
from gallery.conch.speaking import Clip, Speaker
from gallery.conch.tokenizer import special, tokenizer
from gallery.conch.voices import lesson_voice
from gallery.conch.words import CHUNK_SECONDS, STAMPS, WORDS

SEED = 7
CLIP = 1.0
ATTENTION_WEIGHT = 0.3
"""How much it counts to attend to a word while writing it. Without, finding that out takes most of the training."""
REPORT_EVERY = 20
EXPORT_EVERY = 100

POOL = 1500
"""Clips at hand; each step replaces some."""
RENEWED = 6

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    stages: tuple[Stage, ...]
    to: Path
    checkpoint: Path
    threads: int


def shape() -> Shape:
    return Shape(vocabulary=tokenizer().get_vocab_size() + STAMPS)


def train(plan: Plan) -> None:
    """Go through the stages; export now and then, and at the end."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(SEED)
    network = Network(shape())
    optimizers = _optimizers(network)
    done = _resume(plan.checkpoint, network, optimizers)
    rng = random.Random(SEED + done)
    size = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    print(f"{shape()} {size / 1e6:.2f} M parameters, from step {done}", flush=True)
    with Speaker() as speaker:
        pool = [_spoken(rng, speaker) for _ in range(POOL)]
        began, losses = time.monotonic(), [0.0, 0.0]
        for step, (stage, rate) in enumerate(steps(plan.stages), start=1):
            if step <= done:
                continue
            for _ in range(RENEWED):
                pool[rng.randrange(POOL)] = _spoken(rng, speaker)
            found = _step(network, optimizers, _batch(rng, pool, stage), rate)
            losses = [total + one / REPORT_EVERY for total, one in zip(losses, found, strict=True)]
            if step % REPORT_EVERY == 0:
                minutes = (time.monotonic() - began) / 60
                print(f"{stage.name} {step}: {minutes:.1f} min, loss {losses[0]:.4f}, off {losses[1]:.3f}", flush=True)
                losses = [0.0, 0.0]
            if step % EXPORT_EVERY == 0:
                _keep(plan.checkpoint, network, optimizers, step)
                export(plan.to, shape(), network.state_dict())
    export(plan.to, shape(), network.state_dict())
    print(f"done: {plan.to}", flush=True)


def _optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    matrices = [w for name, w in network.named_parameters() if w.ndim == 2 and "embed" not in name]
    others = [w for w in network.parameters() if w.requires_grad and not any(w is m for m in matrices)]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def _spoken(rng: random.Random, speaker: Speaker) -> Clip:
    while True:
        words = rng.choices(WORDS, k=rng.choice((1, 1, 2, 3, 3, 4, 5, 6, 8)))
        text = words[0] + "".join(rng.choice((" ", " ", " ", ", ")) + word for word in words[1:])
        try:
            clip = speaker.say(text, lesson_voice(rng))
        except ValueError:
            continue  # It joined words, as it does with "no" and "one" for one.
        if clip.seconds < CHUNK_SECONDS:
            return clip


def _batch(rng: random.Random, pool: list[Clip], stage: Stage) -> Batch:
    """Features, tokens, targets (-100 where there is nothing to learn), and per token the frames it is heard in."""
    whole = rng.random() < stage.whole
    count = stage.batch // 3 if whole else stage.batch
    lessons = [lesson(rng, rng.sample(pool, 8), stage.longest) for _ in range(count)]
    heard = [features(one.samples) for one in lessons]
    frames = max(one.shape[1] for one in heard)
    # faster-whisper fills up to 30 seconds; how much follows must not matter.
    padding = 3000 - frames if whole else rng.choice((0, 20, 100, 300))
    frames += padding + (frames + padding) % 2
    mel = torch.zeros(len(lessons), MELS, frames)
    longest = max(len(one.tokens) for one in lessons)
    tokens = torch.full((len(lessons), longest), special("<|endoftext|>"))
    targets = torch.full((len(lessons), longest - 1), -100)
    frames_of = torch.zeros(len(lessons), longest - 1, 2, dtype=torch.long)
    for row, (one, mels) in enumerate(zip(lessons, heard, strict=True)):
        mel[row, :, : mels.shape[1]] = mels
        _write(one, tokens[row], targets[row], frames_of[row], frames // 2)
    return mel, tokens[:, :-1], targets, frames_of


def _write(one: Lesson, tokens: Tensor, targets: Tensor, frames_of: Tensor, frames: int) -> None:
    written = torch.tensor(one.tokens)
    tokens[: len(written)] = written
    targets[one.learnt_from - 1 : len(written) - 1] = written[one.learnt_from :]
    if not one.spans:
        # Nobody speaks: that is what follows the start.
        targets[0] = special("<|nospeech|>")
    for index, (begin, end) in one.spans.items():
        first = min(max(0, int(begin * 50)), frames - 2)
        frames_of[index - 1] = torch.tensor((first, min(frames, max(first + 2, round(end * 50)))))


def _step(network: Network, optimizers: list[torch.optim.Optimizer], batch: Batch, rate: float) -> tuple[float, float]:
    mel, tokens, targets, frames_of = batch
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits, shown = network(mel, tokens)
    loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), label_smoothing=0.02)
    off = torch.stack([_off(one, frames_of) for one in shown]).mean()
    (loss + ATTENTION_WEIGHT * off).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item(), off.item()


def _off(attended: Tensor, frames_of: Tensor) -> Tensor:
    """How unlikely the first head is to attend where the next token is heard: -log of its attention there."""
    begin, end = frames_of.unbind(-1)
    positions = torch.arange(attended.shape[-1])
    inside = (positions >= begin[..., None]) & (positions < end[..., None])
    there = attended.masked_fill(~inside, -1e4).logsumexp(-1)
    counted = end > begin
    return -there[counted].mean()


def _keep(path: Path, network: Network, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    partial = path.with_suffix(".partial")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"step": step, "network": network.state_dict(), "optimizers": states}, partial)
    partial.replace(path)


def _resume(path: Path, network: Network, optimizers: list[torch.optim.Optimizer]) -> int:
    if not path.exists():
        return 0
    kept = torch.load(path)
    network.load_state_dict(kept["network"])
    for optimizer, state in zip(optimizers, kept["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return int(kept["step"])


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m gallery.conch.train")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--checkpoint", type=Path, default=Path("conch.checkpoint"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    return Plan(STAGES, arguments.to, arguments.checkpoint, arguments.threads)


if __name__ == "__main__":
    train(_plan())
