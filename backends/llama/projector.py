"""Eyes and ears of a model: llama.cpp's mtmd behind a few Python methods.

    projector = Projector(path, model, ...)     a projector file (mmproj) that fits the model
    prompt = projector.read(parts)              text, pictures and sounds -> tokens, and what must be encoded
    rows = projector.encode(piece)              the slow part: one embedding for each place of a piece

`read` and `encode` take turns (mtmd is not made for several threads) and belong into a thread; neither touches
the context that generates text, so the decode loop goes on meanwhile.
"""

import ctypes
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp as llama
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp as mtmd

from backends.errors import EngineError, InvalidValueError, ModelFileError, NotLoadedError, UnsupportedError
from backends.llama import logs
from backends.llama.devices import handles
from backends.llama.media_tokens import media_tokens
from backends.llama.model import Floats, Model
from backends.llama.pictures import MAX_ALL_PIXELS, read_picture
from backends.llama.sounds import check_sound

_TEXT, _AUDIO = mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT, mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO


@dataclass(frozen=True, slots=True)
class Words:
    """A piece of text. In a plain one, no text counts as a control token."""

    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture or sound, as its file."""

    kind: str
    """"image" or "audio"."""
    data: bytes
    where: str
    """For messages: "picture 2"."""


@dataclass(slots=True, eq=False)
class Piece:
    """What the model sees or hears at one place of the prompt: a picture, a tile of one, or a sound."""

    start: int
    """Of its tokens in the prompt."""
    size: int
    content: str
    """What it shows, as a key: the same for the same content."""
    positions: npt.NDArray[np.int32]
    """One row for each kind of position (four with M-RoPE, else one), a column for each token."""
    saved: int
    """Positions that it takes less than tokens."""
    is_whole: bool
    """All of its tokens see each other, so all are computed at once (Gemma)."""
    chunk: Any
    """mtmd's own; None once it is closed."""
    rows: Floats | None = None
    """Its embeddings, once encoded."""

    def close(self) -> None:
        """Free what is needed for encoding it; its embeddings stay."""
        chunk, self.chunk = self.chunk, None
        if chunk is not None:
            mtmd.mtmd_input_chunk_free(chunk)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with pieces in it; they are to be closed."""

    tokens: list[int]
    pieces: list[Piece]


class Projector:
    """One projector file, for one model."""

    def __init__(self, path: str, model: Model, *, threads: int, device: str | None = None) -> None:
        """Load the file, onto the GPU called `device` if one is; this takes long and belongs into a thread.

        Raises:
            ModelFileError: it cannot be used, or not with this model.
        """
        logs.capture_mtmd()
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu = device is not None
        if device is not None:
            parameters.device = handles([device])[0]
        parameters.n_threads = threads
        parameters.print_timings = False
        self.path = path
        self._lock = threading.Lock()
        self._context = mtmd.mtmd_init_from_file(path.encode(), model.handle, parameters)
        if not self._context:
            raise ModelFileError(f"llama.cpp cannot load the projector {path}: {logs.last_error()}", param="mmproj")
        self.sees = bool(mtmd.mtmd_support_vision(self._context))
        """It takes pictures."""
        self.hears = bool(mtmd.mtmd_support_audio(self._context))
        """It takes sounds."""
        self.file_bytes = os.path.getsize(path)
        self._width = int(llama.llama_model_n_embd_inp(model.handle))
        self._is_mrope = bool(mtmd.mtmd_decode_use_mrope(self._context))

    def close(self) -> None:
        """Free it. Nothing may be running."""
        with self._lock:
            if self._context:
                mtmd.mtmd_free(self._context)
                self._context = None

    @property
    def capabilities(self) -> list[str]:
        """What it adds to its model's."""
        return [*(["vision"] if self.sees else []), *(["audio_in"] if self.hears else [])]

    @property
    def summary(self) -> str:
        """For the line that says what was chosen."""
        senses = " and ".join([*(["sees"] if self.sees else []), *(["hears"] if self.hears else [])])
        return f", {senses} ({os.path.basename(self.path)}, {self.file_bytes / 2**20:.0f} MiB)"

    def check(self, kind: str) -> None:
        """Raises UnsupportedError where it cannot take pictures, or sounds."""
        if kind == "image" and not self.sees:
            raise UnsupportedError("this model hears, but cannot see: it takes no pictures", param="messages")
        if kind == "audio" and not self.hears:
            raise UnsupportedError("this model sees, but cannot hear: it takes no sounds", param="messages")

    def _check_open(self) -> None:
        if not self._context:
            raise NotLoadedError("the model was unloaded while it looked at a picture")

    # ------------------------------------------------------------ reading

    def read(self, parts: Sequence[Words | Medium], begin_token: int | None) -> Prompt:
        """The tokens of a prompt, and its pieces, not encoded yet.

        Raises:
            InvalidValueError: a picture or sound cannot be read.
        """
        bitmaps: list[Any] = []
        with self._lock:
            self._check_open()
            try:
                chunks = self._tokenize(parts, bitmaps)
            finally:
                for bitmap in bitmaps:
                    mtmd.mtmd_bitmap_free(bitmap)
        try:
            return self._prompt(chunks, begin_token)
        finally:
            mtmd.mtmd_input_chunks_free(chunks)

    def _tokenize(self, parts: Sequence[Words | Medium], bitmaps: list[Any]) -> Any:
        whole = (ctypes.POINTER(mtmd.mtmd_input_part) * len(parts))()
        kept: list[Any] = []  # What the C structures point at.
        pixels = 0
        for index, part in enumerate(parts):
            entry = mtmd.mtmd_input_part()
            if isinstance(part, Words):
                raw = part.text.encode(errors="replace")
                text = mtmd.mtmd_input_text(raw, len(raw), False, not part.plain)
                entry.text = ctypes.pointer(text)
                kept += [raw, text]
            else:
                entry.bitmap = self._bitmap(part)
                bitmaps.append(entry.bitmap)
                if part.kind == "image":
                    pixels += mtmd.mtmd_bitmap_get_nx(entry.bitmap) * mtmd.mtmd_bitmap_get_ny(entry.bitmap)
                if pixels > MAX_ALL_PIXELS:
                    raise InvalidValueError(
                        f"the pictures up to {part.where} have {pixels} pixels; at most {MAX_ALL_PIXELS} are taken"
                        " together, make them smaller",
                        param="messages",
                    )
                name = f"{hashlib.sha256(part.data).hexdigest()}#{index}"
                mtmd.mtmd_bitmap_set_id(entry.bitmap, name.encode())
            kept.append(entry)
            whole[index] = ctypes.pointer(entry)
        chunks = mtmd.mtmd_input_chunks_init()
        logs.forget()
        if mtmd.mtmd_tokenize_from_parts(self._context, chunks, whole, len(parts), False):
            mtmd.mtmd_input_chunks_free(chunks)
            raise InvalidValueError(f"a picture or sound cannot be used: {logs.last_error()}", param="messages")
        return chunks

    def _bitmap(self, medium: Medium) -> Any:
        self.check(medium.kind)
        if medium.kind == "image":
            pixels = read_picture(medium.data, medium.where)
            height, width, _ = pixels.shape
            bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        else:
            check_sound(medium.data, medium.where)
            raw = (ctypes.c_uint8 * len(medium.data)).from_buffer_copy(medium.data)
            bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(self._context, raw, len(raw), False)
            if not bitmap:
                raise InvalidValueError(f"{medium.where} cannot be read: it is damaged", param="messages")
        return bitmap

    def _prompt(self, chunks: Any, begin_token: int | None) -> Prompt:
        tokens: list[int] = []
        pieces: list[Piece] = []
        tiles: Counter[str] = Counter()
        position = 0
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, index)
            if mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
                text = _text_tokens(chunk)
                if not tokens and begin_token is not None and text[:1] != [begin_token]:
                    text.insert(0, begin_token)
                tokens += text
                position += len(text)
                continue
            if not tokens and begin_token is not None:
                tokens, position = [begin_token], 1
            name = (mtmd.mtmd_input_chunk_get_id(chunk) or b"").decode()
            piece = self._piece(chunk, len(tokens), position, f"{name.partition('#')[0]}:{tiles[name]}")
            tiles[name] += 1
            tokens += media_tokens(piece.content, piece.size)
            position += piece.size - piece.saved
            pieces.append(piece)
        return Prompt(tokens, pieces)

    def _piece(self, chunk: Any, start: int, position: int, content: str) -> Piece:
        size = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        return Piece(
            start=start,
            size=size,
            content=f"{content}:{size}",
            positions=self._positions(chunk, position, size),
            saved=size - int(mtmd.mtmd_input_chunk_get_n_pos(chunk)),
            is_whole=bool(mtmd.mtmd_decode_use_non_causal(self._context, chunk)),
            chunk=mtmd.mtmd_input_chunk_copy(chunk),
        )

    def _positions(self, chunk: Any, first: int, size: int) -> npt.NDArray[np.int32]:
        """As mtmd's own helper lays them out (`decode_embd_batch` in mtmd-helper-common.h)."""
        running = np.arange(first, first + size, dtype=np.int32)
        if not self._is_mrope:
            return running[np.newaxis]
        if mtmd.mtmd_input_chunk_get_type(chunk) == _AUDIO:
            return np.tile(running, (4, 1))
        places = (mtmd.mtmd_decoder_pos * size)()
        picture = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        mtmd.mtmd_helper_image_get_decoder_pos(picture, first, places)
        t, x, y, z = np.frombuffer(bytes(places), dtype=np.int32).reshape(size, 4).T
        return np.ascontiguousarray([t, y, x, z])

    # ------------------------------------------------------------ encoding

    def encode(self, piece: Piece) -> Floats:
        """The embeddings of a piece, a row for each of its tokens.

        Raises:
            EngineError: it failed.
        """
        with self._lock:
            self._check_open()
            logs.forget()
            if mtmd.mtmd_encode_chunk(self._context, piece.chunk):
                raise EngineError(f"llama.cpp failed to encode a picture or sound: {logs.last_error()}")
            rows = mtmd.mtmd_get_output_embd(self._context)
            return np.ctypeslib.as_array(rows, shape=(piece.size, self._width)).copy()


def _text_tokens(chunk: Any) -> list[int]:
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return list(tokens[: count.value])
