"""What our own steps compute for a prompt with pictures, against llama.cpp's own helper."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from llama_cpp import mtmd_cpp as mtmd

from backends.errors import InvalidValueError
from backends.llama import projector as projector_module
from backends.llama.model import Context, Floats, Model
from backends.llama.projector import Medium, Projector, Words
from backends.llama.shape import Shape
from tests.helpers.media import picture
from tests.helpers.projectors import MINNOW, Kind, write_mrope_model, write_projector

BEFORE, BETWEEN, AFTER = "<|im_start|>user\nLook: ", " and ", " What is it?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("kind", ["mlp", "gemma3", "qwen2vl_merger"])
@pytest.mark.parametrize("step", [5, 64], ids=["in slices", "at once"])
def test_pictures_are_computed_as_by_llama_cpps_own_helper(kind: Kind, step: int, tmp_path: Path) -> None:
    path = write_mrope_model(tmp_path / "model.gguf") if kind == "qwen2vl_merger" else MINNOW
    model = Model(str(path), repack=False, on_progress=lambda _: True)
    projector = Projector(str(write_projector(tmp_path / "p.gguf", kind)), model, threads=1)
    files = [picture(250, 10, 10), picture(9, 9, 200, size=(80, 40))]

    ours = _ours(model, projector, files, step)
    theirs = _theirs(model, projector, files)

    assert ours.argmax() == theirs.argmax()
    assert np.allclose(ours, theirs, atol=0.05), np.abs(ours - theirs).max()
    assert not np.allclose(ours, _ours(model, projector, files[::-1], step), atol=0.2)
    projector.close()
    model.close()


def test_the_pictures_of_a_prompt_are_bounded_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Model(str(MINNOW), repack=False, on_progress=lambda _: True)
    projector = Projector(str(write_projector(tmp_path / "p.gguf", "mlp")), model, threads=1)
    monkeypatch.setattr(projector_module, "MAX_ALL_PIXELS", 2 * 80 * 40)
    parts = [Medium("image", picture(9, 9, 200, size=(80, 40)), f"picture {n}") for n in (1, 2, 3)]

    prompt = projector.read(parts[:2], model.begin_token)
    with pytest.raises(InvalidValueError, match="up to picture 3 have 9600 pixels; at most 6400"):
        projector.read(parts, model.begin_token)

    for piece in prompt.pieces:
        piece.close()
    projector.close()
    model.close()


def _ours(model: Model, projector: Projector, files: list[bytes], step: int) -> Floats:
    parts: list[Words | Medium] = [Words(BEFORE, False), Words(BETWEEN, False), Words(AFTER, False)]
    for number, data in enumerate(files):
        parts.insert(2 * number + 1, Medium("image", data, "a picture"))
    prompt = projector.read(parts, model.begin_token)
    context = Context(model, Shape(cells=256, sequences=2, batch=64, micro_batch=64, threads=1))
    at = 0
    for piece in prompt.pieces:
        _feed(context, prompt.tokens[at : piece.start], at)
        rows = projector.encode(piece)
        size = piece.size if piece.is_whole else step
        for begin in range(0, piece.size, size):
            places = piece.positions[:, begin : begin + size]
            assert context.decode_rows(rows[begin : begin + size], places, 1, logits=False, whole=piece.is_whole)
        at = piece.start + piece.size
        context.end_picture(1, at, piece.saved)
        piece.close()
    row = _feed(context, prompt.tokens[at:], at)
    logits = context.logits(row).copy()
    context.close()
    return logits


def _feed(context: Context, tokens: list[int], start: int) -> int:
    context.clear_batch()
    row = context.add(tokens, 1, start, rows=1)
    assert context.decode()
    return row


def _theirs(model: Model, projector: Projector, files: list[bytes]) -> Floats:
    context = Context(model, Shape(cells=256, sequences=2, batch=64, micro_batch=64, threads=1))
    marker = mtmd.mtmd_default_marker()
    text = marker.join([BEFORE.encode(), BETWEEN.encode(), AFTER.encode()])
    bitmaps = [projector._bitmap(Medium("image", data, "a picture")) for data in files]
    chunks = mtmd.mtmd_input_chunks_init()
    whole = mtmd.mtmd_input_text(text, len(text), False, True)
    given = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
    assert mtmd.mtmd_tokenize(projector._context, chunks, ctypes.byref(whole), given, len(bitmaps)) == 0
    past = llama_cpp.llama_pos(0)
    handles = projector._context, context.handle
    assert mtmd.mtmd_helper_eval_chunks(*handles, chunks, 0, 1, 64, True, ctypes.byref(past)) == 0
    logits = context.logits(-1).copy()
    mtmd.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd.mtmd_bitmap_free(bitmap)
    context.close()
    return logits
