"""The diffusers engine: pictures from text and from pictures, through Hugging Face's diffusers on torch."""

import os

# As in `backends.llama`: threads that wait for each other sleep soon. With two other busy programs beside it, a tiny
# picture took 20 times as long with spinning. Read when torch loads its OpenMP library, hence here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
