"""conch, the built-in model that hears: a tiny whisper for digits and a few commands, and how it is trained."""
