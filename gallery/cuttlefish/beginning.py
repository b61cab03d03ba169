"""Where the autoencoder's training begins: with weights that pass a small, smoothed copy of the picture through.

From random weights it takes thousands of steps until colours arrive at all, as every normalization on the way divides
them by how bright the picture is. So each channel that is passed on comes with its negative (SiLU(x) - SiLU(-x) = x),
beside two large constants, which make what the normalizations divide by nearly the same for every picture; and what a
block adds to its input is nothing at first.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

CONSTANT = 3.0
"""What pictures are, -1 to 1, is small beside it."""

_BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
_COLOURS = 3


@torch.no_grad()
def pass_through(vae: AutoencoderKL) -> None:
    """Set the weights of an untrained autoencoder to those."""
    for name, part in vae.named_modules():
        if isinstance(part, nn.Conv2d):
            part.weight.mul_(0.1)
            _bias(part).zero_()
            if name.endswith("conv2"):
                part.weight.zero_()
            elif name.endswith("conv_shortcut") or "samplers" in name:
                _same(part.weight)
        elif isinstance(part, nn.Linear) and name.endswith("to_out.0"):
            part.weight.zero_()
            part.bias.zero_()
    for network in (vae.encoder, vae.decoder):
        _doubled(network.conv_in)
        _halved(network.conv_norm_out, network.conv_out)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        if conv is not None:
            conv.weight.zero_()
            conv.weight[:, :, 0, 0] = torch.eye(len(conv.weight))
    if vae.quant_conv is not None:
        # The second half is how uncertain the first is.
        vae.quant_conv.bias[len(vae.quant_conv.bias) // 2 :] = -4.0


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _same(weight: Tensor) -> None:
    """Each channel on to the channel of its number, blurred where there is room for it."""
    passed = min(weight.shape[:2])
    kernel = _BLUR if weight.shape[-1] == 3 else torch.ones(1, 1)
    weight[torch.arange(passed), torch.arange(passed)] = kernel


def _doubled(conv: nn.Conv2d) -> None:
    """The first three channels and their negatives, then the two constants."""
    for index in range(_COLOURS):
        for place, sign in ((index, 1.0), (index + _COLOURS, -1.0)):
            conv.weight[place] = 0
            conv.weight[place, index] = sign * _BLUR
    for place, sign in ((2 * _COLOURS, 1.0), (2 * _COLOURS + 1, -1.0)):
        conv.weight[place] = 0
        _bias(conv)[place] = sign * CONSTANT


def _halved(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """The difference of each pair, at the size it had."""
    usual = (2 * CONSTANT**2 + _COLOURS) / norm.num_channels
    norm.weight.fill_(usual**0.5)
    for index in range(_COLOURS):
        conv.weight[index] = 0
        conv.weight[index, index, 1, 1] = 1
        conv.weight[index, index + _COLOURS, 1, 1] = -1
