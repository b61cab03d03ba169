"""Write the trained network as a folder that faster-whisper loads."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ctranslate2.converters import TransformersConverter
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from gallery.conch.features import MELS
from gallery.conch.network import Shape
from gallery.conch.tokenizer import special, tokenizer
from gallery.conch.words import CHUNK_SECONDS

QUANTIZATION = "float16"


def export(folder: Path, shape: Shape, weights: dict[str, Tensor]) -> None:
    """Write the folder, and put it in place only when it is complete."""
    with TemporaryDirectory(dir=folder.parent) as there:
        original, converted = Path(there) / "transformers", Path(there) / "model"
        _save(original, shape, weights)
        TransformersConverter(str(original)).convert(str(converted), quantization=QUANTIZATION)
        tokenizer().save(str(converted / "tokenizer.json"), pretty=False)
        extractor = {"feature_size": MELS, "chunk_length": CHUNK_SECONDS}
        (converted / "preprocessor_config.json").write_text(json.dumps(extractor) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        converted.rename(folder)


def _save(folder: Path, shape: Shape, weights: dict[str, Tensor]) -> None:
    config = WhisperConfig(
        vocab_size=shape.vocabulary,
        num_mel_bins=MELS,
        d_model=shape.width,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.feed_forward,
        decoder_ffn_dim=shape.feed_forward,
        max_source_positions=shape.positions,
        max_target_positions=shape.tokens,
        decoder_start_token_id=special("<|startoftranscript|>"),
        bos_token_id=special("<|endoftext|>"),
        eos_token_id=special("<|endoftext|>"),
        pad_token_id=special("<|endoftext|>"),
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        suppress_tokens=[],
        # Not even the end is suppressed at the beginning: silence has no words.
        begin_suppress_tokens=[],
        alignment_heads=[[layer, 0] for layer in range(shape.decoder_layers)],
        lang_to_id={"<|en|>": special("<|en|>")},
    )
    model.to(torch.float32).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
