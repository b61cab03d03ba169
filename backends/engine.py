"""The engine behind a backend: what `backends.server` asks of it.

An engine runs one model. All its methods are called on the server's event loop and must not block
it; an engine with its own thread hands results over with `loop.call_soon_threadsafe`. Requests and
answers are the protocol's own messages (`proto/backend.proto` says what each field means).

The rules:

- Errors are `backends.errors`; anything else raised becomes `engine_error`.
- A call's task is cancelled when its caller goes away. What it held (its slot, its memory) is free
  by the end of the step that is running then.
- `changed` (given when constructed) is called whenever `state()` would answer something new. Call
  it as often as you like; the server pushes at most 20 states a second.
- A method an engine does not have stays as it is here and answers "unsupported".
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from backends.errors import UnsupportedError
from backends.outbox import Outbox
from backends.rpc import backend_pb2 as pb

Report = Callable[[float, str], None]
"""Called with the fraction loaded (0 to 1) and the stage, for people."""

Replies = Outbox[pb.GenerateEvent]
"""Where the events of one Generate call go."""


NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})


class Engine(Protocol):
    """One engine: constructed without a model, loaded once, then asked."""

    name: str

    def __init__(self, changed: Callable[[], None]) -> None: ...

    def describe(self) -> pb.DescribeReply:
        """What this engine is and can do; nothing needs to be loaded."""
        ...

    async def load(self, request: pb.LoadRequest, report: Report) -> pb.LoadedModel:
        """Load the model. Cancelling gives up the load.

        Raises:
            ModelFileError: the weights cannot be used.
            InvalidValueError: a setting is unknown or wrong.
            OutOfMemoryError: the model does not fit.
        """
        ...

    async def unload(self) -> None:
        """Free the model. Running calls end with NotLoadedError."""
        ...

    def state(self) -> pb.State:
        """The load right now."""
        ...

    async def generate(
        self, request: pb.GenerateRequest, replies: Replies, blobs: Mapping[str, bytes] = NO_BLOBS
    ) -> None:
        """Put the answer's events into `replies`, the usage last; return when all are put. `blobs` are the
        files that came with the request, by name."""
        raise self._cannot("generate text")

    async def embed(self, request: pb.EmbedRequest) -> pb.EmbedReply:
        """One vector for each input, in order."""
        raise self._cannot("make embeddings")

    async def rerank(self, request: pb.RerankRequest) -> pb.RerankReply:
        """One score for each document, in order."""
        raise self._cannot("rerank documents")

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        """The token ids of a text or of a rendered conversation."""
        raise self._cannot("tokenize")

    async def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeReply:
        """The text of token ids."""
        raise self._cannot("detokenize")

    def generate_image(self, params: pb.ImageParams, blobs: Mapping[str, bytes]) -> AsyncGenerator[pb.ImageReply, None]:
        """Progress, previews and pictures, as they are made. `blobs` are the files that came with the request."""
        raise self._cannot("generate images")

    def transcribe(
        self, params: pb.TranscribeParams, file: AsyncIterator[pb.TranscribeRequest]
    ) -> AsyncGenerator[pb.TranscribeReply, None]:
        """Segments of text, as they are heard. `file` are the messages that follow, with its pieces."""
        raise self._cannot("transcribe")

    def speak(self, request: pb.SpeechRequest) -> AsyncGenerator[pb.SpeechReply, None]:
        """Pieces of sound, as they are made."""
        raise self._cannot("speak")

    async def list_voices(self, request: pb.VoicesRequest) -> pb.VoicesReply:
        """Every voice that `speak` takes."""
        raise self._cannot("speak")

    def _cannot(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"the {self.name} engine cannot {what}")
