"""What a node tells Prometheus beyond its API: the mesh's counters, and how busy each of its models is.

Read when somebody asks (`GET /metrics`), so that counting costs nothing.
"""

from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mesh.mesh import Mesh
from mesh.types import NodeState
from node.local_models import LocalModels

NOW = {"peers_connected", "streams_open", "calls_waiting"}
"""Figures of `mesh.stats.MeshStats` that go up and down; the others only grow."""


class NodeCollector(Collector):
    """The figures of one node."""

    def __init__(self, mesh: Mesh, local: LocalModels) -> None:
        self._mesh = mesh
        self._local = local

    def collect(self) -> Iterator[Metric]:
        for name, value in asdict(self._mesh.stats()).items():
            kind = GaugeMetricFamily if name in NOW else CounterMetricFamily
            yield kind(f"shoal_mesh_{name}", f"Mesh: {name.replace('_', ' ')}.", value=value)
        yield self._members()
        yield from self._models()

    def _members(self) -> Metric:
        members = GaugeMetricFamily("shoal_mesh_members", "Nodes by state, this one included.", labels=["state"])
        states = [member.state for member in self._mesh.view().members.values()]
        for state in NodeState:
            members.add_metric([state.value], states.count(state))
        return members

    def _models(self) -> Iterator[Metric]:
        slots = GaugeMetricFamily("shoal_model_slots", "Requests a loaded model serves at once.", labels=["model"])
        busy = GaugeMetricFamily("shoal_model_busy", "Requests it is serving.", labels=["model"])
        queued = GaugeMetricFamily("shoal_model_queued", "Requests waiting for it.", labels=["model"])
        for record in self._local.records():
            if record.slots:
                slots.add_metric([record.name], record.slots)
                busy.add_metric([record.name], record.busy)
                queued.add_metric([record.name], record.queued)
        yield from (slots, busy, queued)
