"""The speech engine: sound from text, sentence by sentence."""
