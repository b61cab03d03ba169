"""Train cuttlefish from nothing: `python -m gallery.cuttlefish.train`.

First the autoencoder, its decoder a little longer, then text encoder and UNet together on its latents. Scenes and
initial weights follow from the seed; on other machines sums are rounded in another order, so the weights differ
slightly, and the exam says whether a new model is as good. Needs the `train` dependencies. Checkpoints in `--work` are
gone on from: delete them to begin anew.
"""

import argparse
import copy
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gallery.cuttlefish.beginning import pass_through
from gallery.cuttlefish.learning import Course, learn
from gallery.cuttlefish.networks import autoencoder, scheduler, text_encoder, unet
from gallery.cuttlefish.scenes import Scene, any_scene, draw, prompt
from gallery.cuttlefish.vocabulary import LONGEST, tokenizer

SEED = 7
AUTOENCODER = Course(steps=500, batch=8, rate=1.5e-3, decay=0.99)
DECODER = Course(steps=400, batch=8, rate=1.5e-3, decay=0.99)
PAINTER = Course(steps=4000, batch=32, rate=2e-3, decay=0.995, orthogonal=True)

KL = 1e-3
"""Weight of how far latents are from noise: enough that latents slightly off are decoded almost as well."""
DIRT = 0.15
"""Noise on the latents from which the decoder learns to draw clean shapes, as those that are painted are not exact."""
UNTOLD = 0.12
"""Part of the pictures that are learnt without their prompt, for guidance."""
POOL = 1200
"""Latents at hand; each step replaces some."""
RENEWED = 4


class Painter(nn.Module):
    """What is learnt together."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = tokenizer()
        self.text_encoder = text_encoder(self.tokenizer)
        self.unet = unet().to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, times: Tensor, said: list[str]) -> Tensor:
        tokens = self.tokenizer(said, padding="max_length", max_length=LONGEST, truncation=True, return_tensors="pt")
        return self.unet(noisy, times, self.text_encoder(tokens.input_ids)[0]).sample  # type: ignore[no-any-return]


def train_autoencoder(checkpoint: Path) -> AutoencoderKL:
    """To pixels and back; scaled so that latents have unit variance."""
    torch.manual_seed(SEED)
    network = autoencoder()
    pass_through(network)
    network.to(memory_format=torch.channels_last)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{SEED} autoencoder {step}")
        pictures = _pictures([any_scene(rng, held_out=False) for _ in range(AUTOENCODER.batch)], rng)
        with torch.autocast("cpu", torch.bfloat16):
            latent = network.encode(pictures).latent_dist
            again = network.decode(latent.sample()).sample
        information: Tensor = latent.kl().mean() / latent.mean[0].numel()
        return _unlike(again, pictures) + KL * information

    average = learn(network, AUTOENCODER, checkpoint, loss_of, lambda: None)
    rng = random.Random(SEED)
    with torch.no_grad():
        latents = average.encode(_pictures([any_scene(rng, held_out=False) for _ in range(256)], rng)).latent_dist.mean
    average.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return average


def train_decoder(vae: AutoencoderKL, checkpoint: Path) -> None:
    """Sharpens what is decoded; latents stay what they are."""
    vae.requires_grad_(False)
    network = nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(True)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{SEED} decoder {step}")
        pictures = _pictures([any_scene(rng, held_out=False) for _ in range(DECODER.batch)], rng)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pictures).latent_dist.mode()
            dirt = torch.randn(latents.shape) * DIRT / vae.config.scaling_factor * rng.random()
            again = vae.decode(latents + dirt).sample
        return _unlike(again, pictures)

    average = learn(network, DECODER, checkpoint, loss_of, lambda: None)
    network.load_state_dict(average.state_dict())
    vae.requires_grad_(False)


def train_painter(vae: AutoencoderKL, checkpoint: Path, to: Path) -> None:
    """From noise and words to latents."""
    torch.manual_seed(SEED + 1)
    painter, noises = Painter(), scheduler()
    rng = random.Random(SEED + 1)
    pool = [one for _ in range(POOL // 64) for one in _encoded(vae, rng, 64)]
    print(f"{len(pool)} latents, scaled by {vae.config.scaling_factor}", flush=True)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{SEED} painter {step}")
        for one in _encoded(vae, rng, RENEWED):
            pool[rng.randrange(len(pool))] = one
        chosen = [rng.choice(pool) for _ in range(PAINTER.batch)]
        said = ["" if rng.random() < UNTOLD else prompt(scene, rng) for scene, _ in chosen]
        latents = torch.stack([latent for _, latent in chosen])
        noise = torch.randn(latents.shape)
        times = torch.randint(0, noises.config.num_train_timesteps, (len(latents),))
        noisy = noises.add_noise(latents, noise, times).contiguous(memory_format=torch.channels_last)
        # The kernel that saves memory takes twice as long for so few positions.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            found = painter(noisy, times, said)
        return functional.mse_loss(found.float(), noises.get_velocity(latents, noise, times))

    learn(painter, PAINTER, checkpoint, loss_of, lambda: export(to, vae, painter))


def export(to: Path, vae: AutoencoderKL, painter: Painter) -> None:
    """Write the folder that diffusers loads, weights in 16 bits."""
    parts = copy.deepcopy((vae, painter.text_encoder, painter.unet))
    vae, text, net = (part.to(torch.float16).to(memory_format=torch.contiguous_format) for part in parts)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=painter.tokenizer,
        unet=net,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(to)


def _unlike(again: Tensor, pictures: Tensor) -> Tensor:
    off: Tensor = again.float() - pictures
    return off.abs().mean() + off.square().mean()


def _pictures(scenes: list[Scene], rng: random.Random) -> Tensor:
    drawn = torch.from_numpy(np.stack([draw(scene, rng) for scene in scenes])) / 127.5 - 1
    return drawn.permute(0, 3, 1, 2)


@torch.no_grad()
def _encoded(vae: AutoencoderKL, rng: random.Random, count: int) -> list[tuple[Scene, Tensor]]:
    scenes = [any_scene(rng, held_out=False) for _ in range(count)]
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(_pictures(scenes, rng)).latent_dist.mode()
    return list(zip(scenes, latents.float() * vae.config.scaling_factor, strict=True))


def main() -> None:
    """Both trainings."""
    parser = argparse.ArgumentParser(prog="python -m gallery.cuttlefish.train")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--work", type=Path, default=Path("cuttlefish.work"), help="folder of the checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    vae = train_autoencoder(arguments.work / "autoencoder")
    train_decoder(vae, arguments.work / "decoder")
    train_painter(vae, arguments.work / "painter", arguments.to)


if __name__ == "__main__":
    main()
