"""What conch knows: the words, and the tokens around them."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = ("yes", "no", "stop", "go", "left", "right", "up", "down", "on", "off", "open", "close", "start", "help")
WORDS = DIGITS + COMMANDS

CHUNK_SECONDS = 6
"""How much it hears at a time. Longer sound is heard window by window, which faster-whisper does."""

STAMP_SECONDS = 0.02
"""Between two timestamp tokens: whisper's own, faster-whisper counts on it."""
STAMPS = round(CHUNK_SECONDS / STAMP_SECONDS) + 1
STAMP_STEP = 0.1
"""It is taught times in these steps: finer ones cost training and serve nobody."""

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
"""In whisper's order: text before them, timestamps after."""
