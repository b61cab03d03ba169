"""Before anything is loaded: what is chosen for a model, and the memory it will take."""

import os
from dataclasses import replace

import psutil

from backends.llama.footprint import Estimator, Footprint, Needs
from backends.llama.gguf_header import read_header
from backends.llama.settings import (
    DEFAULT_SLOTS,
    LlamaSettings,
    Machine,
    ModelFacts,
    Plan,
    check_weights_fit,
    choose,
    gpu_layers,
    shape_of,
    threads_of,
)
from backends.rpc import backend_pb2 as pb

_PROBES = 2048, 4096
"""Tokens. Memory grows evenly with the context, so that two figures tell all others."""


def plan_load(settings: LlamaSettings, request: pb.LoadRequest, machine: Machine) -> tuple[Plan, Needs]:
    """What is chosen for the model of `request`, and what it takes. Reads headers and vocabularies only.

    Raises:
        ModelFileError: a file is missing or damaged, or llama.cpp refuses it.
        InvalidValueError: a longer context than the model was trained for.
        UnsupportedError: this model cannot be computed as the settings say.
        OutOfMemoryError: it does not fit the free memory.
    """
    read_header(request.path)
    check_weights_fit(request.path, os.path.getsize(request.path), machine)
    layers = gpu_layers(settings, machine, list(request.devices))
    estimators = [Estimator(request.path, gpu_layers=layers)]
    try:
        if request.draft_path:
            read_header(request.draft_path)
            estimators.append(Estimator(request.draft_path, gpu_layers=layers))
        return _plan(settings, estimators, machine)
    finally:
        for estimator in estimators:
            estimator.close()


def _plan(settings: LlamaSettings, estimators: list[Estimator], machine: Machine) -> tuple[Plan, Needs]:
    process = psutil.Process().memory_info().rss
    model = estimators[0].model
    weights = sum(estimator.model.weight_bytes for estimator in estimators)
    slots = settings.slots or DEFAULT_SLOTS
    threads = threads_of(settings, model.weight_bytes, machine)

    def footprint(cells: int, slots: int) -> Footprint:
        shape = shape_of(settings, cells=cells, slots=slots, threads=threads)
        return sum((estimator.footprint(shape) for estimator in estimators), Footprint(0, 0))

    short, long = (footprint(cells, slots).total for cells in _PROBES)
    per_token = (long - short) // (_PROBES[1] - _PROBES[0])
    facts = ModelFacts(
        description=model.description,
        trained_context=model.trained_context,
        layers=model.layers,
        weight_bytes=model.weight_bytes,
        cache_bytes_per_token=per_token,
        fixed_bytes=max(0, short - per_token * _PROBES[0]),
        can_share=model.can_share,
    )
    in_memory = 0 if machine.offloads else weights
    plan = choose(settings, facts, replace(machine, free_bytes=max(0, machine.free_bytes - in_memory)))
    needs = Needs(weights, footprint(plan.cells, plan.slots), process)
    return replace(plan, summary=f"{plan.summary}; {needs}"), needs
