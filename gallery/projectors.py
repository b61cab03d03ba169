"""Which projector (mmproj file: eyes or ears) belongs to which model of a folder, by the files' names. Pure.

qwen-vl-7b-q4_k_m.gguf      mmproj-qwen-vl-7b-f16.gguf     the same but for "mmproj" and the precision
gemma.gguf                  mmproj-f16.gguf                nameless: for the only model there is
"""

import re
from collections.abc import Iterable, Sequence

_PRECISION = re.compile(r"^(?:f16|f32|bf16|fp16|fp32|i?q\d+|\d|k|s|m|l|xl|xs|xxs|nl|ud|gguf)$")
"""Words at the end of a file's name that say how exact its numbers are: q4_k_m, f16, iq2_xxs."""


def pair(models: Iterable[str], projectors: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Projectors by model, both as names without their suffix; and the nameless ones that nobody can place."""
    models = list(models)
    by_core: dict[str, str] = {}
    nameless: list[str] = []
    for projector in sorted(projectors):
        core = _core(projector)
        if core:
            by_core.setdefault(core, projector)
        else:
            nameless.append(projector)
    paired = {model: by_core[core] for model in models if (core := _core(model)) in by_core}
    if nameless and len(models) == 1:
        paired.setdefault(models[0], nameless[0])
    unplaced = nameless if len(models) > 1 else []
    return paired, unplaced


def _core(name: str) -> str:
    words = [word for word in re.split(r"[-_. ]+", name.lower()) if word != "mmproj"]
    while words and _PRECISION.match(words[-1]):
        words.pop()
    return "-".join(words)
