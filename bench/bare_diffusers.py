"""diffusers by itself, the yardstick of `bench.pictures`: a process that makes a model in a folder, then draws
what it is told on its input.

    python -m bench.bare_diffusers FOLDER
    > {"threads": 2}
    < {"prompt": "a red circle", "seed": 7, "steps": 20, "size": 128}
    > {"seconds": 1.1, "pixels": "sha256 in hex"}

Importing `backends.diffusion` first gives it the engine's OpenMP settings; its threads are torch's own choice, as the
engine's are. The time is that of the call of the pipeline alone, with the picture in memory at its end.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import backends.diffusion  # noqa: F401  See above: before torch.

# isort: split
import torch
from diffusers import DiffusionPipeline

from backends.diffusion.pipeline import quiet
from tests.helpers.tiny_pipeline import save_tiny_pipeline


def main(folder: Path) -> None:
    """Answers line by line until its input ends."""
    quiet()
    save_tiny_pipeline(folder)
    pipeline = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        began = time.perf_counter()
        picture = pipeline(
            ask["prompt"],
            num_inference_steps=ask["steps"],
            width=ask["size"],
            height=ask["size"],
            generator=torch.Generator("cpu").manual_seed(ask["seed"]),
        ).images[0]
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "pixels": hashlib.sha256(picture.tobytes()).hexdigest()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
