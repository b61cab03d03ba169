"""Files that must not be taken on trust: checkpoints that run code when they are read. Pure."""

from pathlib import PurePosixPath

from gallery.errors import InstallError

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
"""What pickled checkpoints are called."""


def check_name(path: str, *, allow_pickle: bool) -> None:
    """Raises InstallError for what is, by its name, a pickled checkpoint."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in PICKLES and not allow_pickle:
        raise InstallError(
            f"{PurePosixPath(path).name} is a pickled checkpoint, which can run any program when it is read; take a"
            " .gguf or .safetensors version, or say --allow-pickle if you trust its author",
            code="unsafe",
        )


def check_content(name: str, beginning: bytes, *, allow_pickle: bool) -> None:
    """The same, judged by a file's first bytes: whatever it is called.

    A pickle of protocol 2 and later begins with 0x80 and its version; PyTorch's are zip archives that hold one.
    """
    is_pickle = beginning[:1] == b"\x80" and beginning[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if not is_pickle and beginning[:4] == b"PK\x03\x04":
        is_pickle = b"data.pkl" in beginning or b".pickle" in beginning
    if is_pickle and not allow_pickle:
        raise InstallError(f"{name} holds a pickled checkpoint; refused (--allow-pickle takes it)", code="unsafe")
