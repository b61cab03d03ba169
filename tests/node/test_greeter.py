"""What the log says of others who come and go."""

from collections.abc import Callable
from typing import Any

import pytest

from mesh.types import Member, MeshView, NodeState
from node.greeter import Greeter, news
from tests.helpers.mesh_records import member, view


def attic(state: NodeState = NodeState.ALIVE, **fields: Any) -> Member:
    return member("attic", state=state, addresses=("/ip4/10.77.9.3/tcp/4001",), **fields)


def story(*members: Member | None) -> list[str]:
    """What is said while the node becomes one after the other; None: it is not known."""
    said: list[str] = []
    greeted = frozenset[Any]()
    for one in members:
        lines, greeted = news(greeted, view("me") if one is None else view("me", one))
        said += lines
    return said


JOINED = "attic (10.77.9.3) joined"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param([None, attic(), attic()], [JOINED], id="said once"),
        pytest.param([attic(), attic(NodeState.LEFT)], [JOINED, "attic left"], id="a good-bye"),
        pytest.param(
            [attic(), attic(NodeState.SUSPECT), attic(NodeState.DEAD)], [JOINED, "attic is gone"], id="a loss"
        ),
        pytest.param([attic(), attic(NodeState.SUSPECT), attic()], [JOINED], id="a suspicion that passed"),
        pytest.param([attic(), attic(NodeState.DEAD), attic()], [JOINED, "attic is gone", JOINED], id="it is back"),
        pytest.param([attic(NodeState.SUSPECT), attic(NodeState.DEAD), None], [], id="never met"),
        pytest.param([attic(name=""), attic()], [JOINED], id="its name comes later"),
        pytest.param(
            [attic(), attic(NodeState.DEAD), None, attic()], [JOINED, "attic is gone", JOINED], id="forgotten"
        ),
    ],
)
def test_who_comes_and_goes_is_said(members: list[Member | None], said: list[str]) -> None:
    assert story(*members) == said


class FakeMesh:
    """Shows views to whoever watches."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[MeshView], None]] = []

    def on_change(self, callback: Callable[[MeshView], None]) -> None:
        self.callbacks.append(callback)

    def show(self, shown: MeshView) -> None:
        for callback in self.callbacks:
            callback(shown)


@pytest.mark.parametrize(
    ("has_met", "is_new_mesh", "said"),
    [
        pytest.param(False, False, ["no other node yet; 'shoal doctor' says why"], id="alone"),
        pytest.param(False, True, ["no other node yet"], id="alone in a new mesh"),
        pytest.param(True, False, [JOINED], id="not alone"),
    ],
)
async def test_a_node_that_found_nobody_says_so(
    caplog: pytest.LogCaptureFixture, has_met: bool, is_new_mesh: bool, said: list[str]
) -> None:
    caplog.set_level("INFO", logger="mesh")
    mesh = FakeMesh()
    greeter = Greeter(mesh)
    mesh.show(view("me", attic()) if has_met else view("me"))

    await greeter.mind_loneliness(is_new_mesh=is_new_mesh, after=0)

    assert [record.message for record in caplog.records] == said
