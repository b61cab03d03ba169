"""The OpenAI-compatible face of a node: dialects, authorization, streaming. It computes nothing itself."""
