"""The llama engine: GGUF language models through llama.cpp, many requests in one batch."""

import os

# Threads that wait for each other should sleep, not spin: a node shares its machine with other
# backends, and beside one busy process spinning made a short answer take 4 s instead of 0.03 s.
# Read when llama.cpp's OpenMP library is loaded, hence here. A value set by the user stands.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
