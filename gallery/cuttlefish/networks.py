"""The networks: diffusers' and transformers' own classes, small."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gallery.cuttlefish.scenes import SIZE
from gallery.cuttlefish.vocabulary import LONGEST

TEXT_WIDTH = 64
DOWN = 4
"""Pixels to a side of a latent."""


def autoencoder() -> AutoencoderKL:
    """64 x 64 pixels to 16 x 16 latents of 4 numbers, and back."""
    widths = (16, 32, 32)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=4,
        # Groups would lose what tells colours apart: they are normalized each by itself.
        norm_num_groups=1,
        sample_size=SIZE,
    )


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def unet() -> UNet2DConditionModel:
    """What each block adds is nothing at first, which speeds up the first thousand steps."""
    made = UNet2DConditionModel(
        sample_size=SIZE // DOWN,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    for name, part in made.named_modules():
        if name.endswith(("conv2", "to_out.0", "ff.net.2", "conv_out")):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    return made


def scheduler() -> DDIMScheduler:
    """Predicts velocity, and begins from nothing but noise, so that a whole background can be black or white."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,  # Not used; the pipeline complains about anything else.
        set_alpha_to_one=True,
    )
