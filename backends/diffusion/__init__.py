"""The diffusers engine: pictures from text and from pictures, through Hugging Face's diffusers on torch."""

import os

# As in `backends.llama`: threads that wait for each other sleep soon. With two other busy programs beside it, a tiny
# picture took 20 times as long with spinning. Read when torch loads its OpenMP library, hence here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Loading a model never fetches anything: what is missing is an error that says so.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
