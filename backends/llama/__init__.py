"""The llama engine: GGUF language models through llama.cpp, many requests in one batch."""
