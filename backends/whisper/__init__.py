"""The whisper engine: text from sound, piece by piece, through faster-whisper."""
