"""One file on its way into text. Slow, and so not for the event loop.

Each block of the sound is a call of the library. The next block is told what was said before it, as the library itself
does from one half minute to the next; the language is found in the first one with sound in it.
"""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any, BinaryIO

from faster_whisper import BatchedInferencePipeline, WhisperModel

from backends.rpc import backend_pb2 as pb
from backends.whisper.request import Job, WhisperSettings
from backends.whisper.sound import SAMPLE_RATE, Block, Sound

REMEMBERED = 223
"""Tokens of what was said before, which the model looks at: half of what it can read, less one."""

DOUBT = 0.5
"""Temperature above which what was said is too doubtful to lead what follows."""


class Hearing:
    """One transcription."""

    def __init__(self, model: WhisperModel, job: Job, settings: WhisperSettings, file: BinaryIO) -> None:
        self._model = model
        self._batched = BatchedInferencePipeline(model) if settings.batch_size > 1 else None
        self._job = job
        self._settings = settings
        self._file = file
        self._language = job.language
        self._probability = 1.0
        self._said: list[int] = []
        self._count = 0
        self._tokens = 0
        self.is_over = False
        """Set from outside: nobody listens any more."""
        self.seconds = 0.0
        """How far into the sound it is."""

    def replies(self) -> Generator[pb.TranscribeReply, None, None]:
        """Everything there is to say of the file; ends early when it `is_over`.

        Raises:
            InvalidValueError: it is no sound, or damaged.
        """
        settings = self._settings
        with closing(Sound(self._file)) as sound:
            length, told = sound.seconds, False
            end = 0
            for block in sound.blocks(settings.block_seconds, settings.max_hours * 3600):
                end = block.begin + len(block.samples)
                if block.is_silent:
                    continue
                segments = self._hear(block)
                if not told:
                    told = True
                    yield self._info(length)
                for segment in segments:
                    if self.is_over:
                        return
                    yield pb.TranscribeReply(segment=self._told(segment, block.begin / SAMPLE_RATE))
                self.seconds = end / SAMPLE_RATE
                yield pb.TranscribeReply(progress=pb.TranscriptProgress(seconds=self.seconds))
        yield self._info(end / SAMPLE_RATE)
        yield pb.TranscribeReply(usage=pb.Usage(completion_tokens=self._tokens))

    def _info(self, seconds: float) -> pb.TranscribeReply:
        return pb.TranscribeReply(
            info=pb.TranscriptInfo(
                language=self._language or "", language_probability=self._probability, duration_seconds=seconds
            )
        )

    def _hear(self, block: Block) -> Iterable[Any]:
        job = self._job
        options: dict[str, Any] = {
            "language": self._language,
            "task": job.task,
            "beam_size": self._settings.beam_size,
            "temperature": list(job.temperatures),
            "initial_prompt": self._said[-REMEMBERED:] or job.prompt,
            "word_timestamps": job.words,
        }
        if self._batched is not None:
            # Its prompt is the same for every stretch, and must not be what was said in another block.
            options |= {"initial_prompt": job.prompt, "batch_size": self._settings.batch_size}
            segments, info = self._batched.transcribe(block.samples, without_timestamps=False, **options)
        else:
            segments, info = self._model.transcribe(block.samples, vad_filter=job.voice_filter, **options)
        if self._language is None:
            self._language, self._probability = info.language, info.language_probability
        heard: Iterable[Any] = segments
        return heard

    def _told(self, segment: Any, offset: float) -> pb.TranscriptSegment:
        self._said = [*self._said, *segment.tokens][-REMEMBERED:] if segment.temperature <= DOUBT else []
        self._tokens += len(segment.tokens)
        self.seconds = offset + segment.end
        self._count += 1
        return pb.TranscriptSegment(
            id=self._count - 1,
            start_seconds=offset + segment.start,
            end_seconds=offset + segment.end,
            text=segment.text,
            mean_logprob=segment.avg_logprob,
            no_speech_probability=segment.no_speech_prob,
            compression_ratio=segment.compression_ratio,
            temperature=segment.temperature,
            words=[
                pb.TranscriptWord(
                    word=word.word,
                    start_seconds=offset + word.start,
                    end_seconds=offset + word.end,
                    probability=word.probability,
                )
                for word in segment.words or ()
            ],
            token_ids=segment.tokens,
            seek=round(offset * 100) + segment.seek,
        )
