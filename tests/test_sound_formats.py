"""What the API promises and what the engine can write, which do not know each other, are the same."""

from api.speech_request import MEDIA_TYPES
from backends.speech import sound_file


def test_every_format_that_the_api_takes_is_one_that_the_engine_writes() -> None:
    assert sound_file.MEDIA_TYPES == MEDIA_TYPES
