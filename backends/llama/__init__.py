"""The llama engine: GGUF language models through llama.cpp, many requests in one batch."""

import os

# Threads that wait for each other should soon sleep, not spin: a node shares its machine with other
# backends, and beside one busy process spinning made a short answer take 4 s instead of 0.03 s. A step
# has some hundred places where threads wait, most of them for less than a thread takes to wake, so they
# spin for that long (GNU's OpenMP counts turns: some 50 microseconds here) and then sleep.
# Read when llama.cpp's OpenMP library is loaded, hence here. A value set by the user stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
