"""`python -m backends ENGINE`: one process that runs one model, for a node to talk to.

Exit codes: 0 stopped as asked, 1 could not serve, 2 wrong arguments, 3 the engine's package is not installed.
"""

import argparse
import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from backends.engine import Engine
from backends.parent import end_with_parent

SECRET_VARIABLE = "SHOAL_BACKEND_SECRET"


@dataclass(frozen=True, slots=True)
class _Entry:
    module: str
    factory: str
    about: str
    packages: tuple[str, ...] = ()
    remedy: str = ""
    settings: str = ""
    """Module and class of its settings, where they can be read without its packages."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that its packages read when they are imported; what the user has set stands."""


ENGINES = {
    "echo": _Entry(
        "backends.echo_engine",
        "EchoEngine",
        "answers with what it was told; needs no weights",
        settings="backends.echo_reply:EchoSettings",
    ),
    "llama": _Entry(
        "backends.llama.engine",
        "LlamaEngine",
        "GGUF language models, through llama.cpp",
        packages=("llama_cpp", "numpy", "jinja2", "psutil"),
        remedy="shoal engines install llama",
        settings="backends.llama.settings:LlamaSettings",
    ),
    "lender": _Entry(
        "backends.lending.engine",
        "LenderEngine",
        "lends this machine's devices to a model on another one",
        packages=("llama_cpp", "psutil"),
        remedy="shoal engines install llama",
        settings="backends.llama.settings:LlamaSettings",
    ),
    "speech": _Entry(
        "backends.speech.engine",
        "SpeechEngine",
        "text to speech, through espeak-ng",
        packages=("av", "espeakng_loader"),
        remedy="shoal engines install speech",
    ),
    "whisper": _Entry(
        "backends.whisper.engine",
        "WhisperEngine",
        "text from sound, through faster-whisper",
        packages=("faster_whisper", "ctranslate2", "av", "numpy", "onnxruntime", "tokenizers"),
        remedy="shoal engines install whisper",
        settings="backends.whisper.request:WhisperSettings",
    ),
    "diffusers": _Entry(
        "backends.diffusion.engine",
        "DiffusionEngine",
        "pictures from text and pictures, through diffusers",
        packages=("torch", "diffusers", "transformers", "safetensors", "accelerate", "peft", "PIL", "psutil", "numpy"),
        remedy="shoal engines install diffusers",
        settings="backends.diffusion.settings:DiffusionSettings",
        # Loading a model never fetches anything: what is missing is an error that says so. For the process only, for
        # the node that starts it does fetch.
        environment=(("HF_HUB_OFFLINE", "1"), ("HF_HUB_DISABLE_TELEMETRY", "1")),
    ),
}


def main() -> int:
    """Parse the command line and serve."""
    args = _parse()
    if args.parent_pid:
        end_with_parent(args.parent_pid)
    if args.engine not in ENGINES:
        return _fail(f"unknown engine {args.engine!r}; known are {', '.join(ENGINES)}", 2)
    if args.describe:
        return _describe(args.engine)
    if args.check_settings is not None:
        return _check_settings(args.engine, args.check_settings)
    secret = "" if args.address.startswith("unix:") else os.environ.pop(SECRET_VARIABLE, "")
    if not args.address.startswith("unix:") and not secret:
        return _fail(f"a TCP address needs a secret in {SECRET_VARIABLE}: any local program could connect", 2)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for variable, value in ENGINES[args.engine].environment:
        os.environ.setdefault(variable, value)
    try:
        make_engine = _import(args.engine)
    except _MissingPackageError as exc:
        return _fail(str(exc), 3)
    return _run(make_engine, args.address, secret)


def _parse() -> argparse.Namespace:
    engines = "\n".join(f"  {name:10} {entry.about}" for name, entry in ENGINES.items())
    parser = argparse.ArgumentParser(
        prog="python -m backends",
        description="Run one engine as a backend process, spoken to over gRPC (proto/backend.proto).",
        epilog=f"engines:\n{engines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("engine", metavar="ENGINE", help="which engine to run, see below")
    parser.add_argument(
        "--address",
        help="where to listen: unix:/path.sock, or 127.0.0.1:PORT (0 picks a port and prints it;"
        f" the environment must hold a secret in {SECRET_VARIABLE})",
    )
    parser.add_argument(
        "--parent-pid",
        type=int,
        metavar="PID",
        help="the process that started this one: when it ends, so does this backend, at once",
    )
    parser.add_argument(
        "--describe", action="store_true", help="only print, as JSON, what the engine is and can compute on"
    )
    parser.add_argument(
        "--check-settings", metavar="JSON", help="only say whether the engine would take these settings, and why not"
    )
    args = parser.parse_args()
    if not args.describe and args.check_settings is None and not args.address:
        parser.error("the following arguments are required: --address")
    return args


class _MissingPackageError(Exception):
    """The engine's package is not installed, or cannot be loaded."""


def _import(name: str) -> Callable[[Callable[[], None]], Engine]:
    entry = ENGINES[name]
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in entry.packages:
            raise
        raise _MissingPackageError(f"the {name} engine needs the package {exc.name!r}: {entry.remedy}") from exc
    except (OSError, RuntimeError) as exc:  # A shared library that is there but does not load.
        raise _MissingPackageError(f"the {name} engine cannot be loaded: {exc}; {entry.remedy}") from exc
    return cast("Callable[[Callable[[], None]], Engine]", getattr(module, entry.factory))


def _describe(name: str) -> int:
    from google.protobuf.json_format import MessageToJson

    try:
        engine = _import(name)(lambda: None)
    except _MissingPackageError as exc:
        return _fail(str(exc), 3)
    print(MessageToJson(engine.describe(), preserving_proto_field_name=True))
    return 0


def _check_settings(name: str, text: str) -> int:
    from backends.errors import InvalidValueError
    from backends.settings import read_settings

    module, _, kind = ENGINES[name].settings.partition(":")
    if not kind:
        return 0
    try:
        read_settings(getattr(importlib.import_module(module), kind), text)
    except InvalidValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _run(make_engine: Callable[[Callable[[], None]], Engine], address: str, secret: str) -> int:
    # gRPC reads this when it is imported. What matters of its messages is in our own errors.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    from backends.host import AddressError, serve

    try:
        import uvloop
    except ImportError:  # Not on Windows; everything works without it, only slower.
        loop = asyncio.Runner()
    else:
        loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with loop as runner:
            runner.run(serve(make_engine, address, secret))
    except AddressError as exc:
        return _fail(str(exc), 1)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"backends: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
