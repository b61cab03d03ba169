"""`--describe`: what an engine is and can compute on, for `shoal doctor` and for people."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("engine", "method"),
    [
        ("echo", "Generate"),
        ("llama", "Generate"),
        ("speech", "Speak"),
        ("whisper", "Transcribe"),
        pytest.param("diffusers", "GenerateImage", marks=pytest.mark.slow),  # Seconds to import.
    ],
)
def test_an_engine_describes_itself_without_serving(engine: str, method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backends", engine, "--describe"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout)
    assert described["engine"] == engine
    assert method in described["methods"]
    assert "cpu" in [device["kind"] for device in described["devices"]]


def test_an_address_is_asked_for_otherwise() -> None:
    done = subprocess.run([sys.executable, "-m", "backends", "echo"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert "--address" in done.stderr
