"""Who answers when somebody has the prompt cached already."""

from collections import Counter

import pytest

from mesh.prefixes import BLOCK, Prompt, PromptMemory
from mesh.routing import rank
from mesh.types import MeshView, ModelRecord, NodeId, NodeState
from tests.helpers.mesh_records import member, model, view
from tests.helpers.prompt_workloads import agents, one_hot_prefix, run

LONG = b"instructions " * 1000
QUESTION = LONG + b"and a question"


def knowing(*texts: bytes, **fields: int) -> ModelRecord:
    memory = PromptMemory(8)
    for text in texts:
        memory.add(Prompt(text))
    return model(prefixes=memory.sketch(), **fields)


def chosen(seen: MeshView, text: bytes = QUESTION, **more: object) -> list[str]:
    """For many requests, who answers most of them (a few explore)."""
    prompt = Prompt(text)
    counts = Counter(next(rank(seen, "m", request_id=f"r{i}", prompt=prompt, **more)).node for i in range(100))  # type: ignore[arg-type]
    return [node for node, count in counts.most_common() if count > 10]


def test_who_has_the_prompt_cached_answers_on_whichever_node_it_is_asked() -> None:
    members = [member("p1", knowing()), member("p2", knowing(LONG)), member("p3", knowing())]

    assert {node for here in ("p1", "p2", "p3", "x") for node in chosen(view(here, *members))} == {"p2"}


def test_a_conversation_goes_back_to_the_node_that_knows_most_of_it() -> None:
    turn = LONG + b"first turn " * 60
    members = [member("p1", knowing(LONG)), member("p2", knowing(turn)), member("p3", knowing(LONG))]

    assert chosen(view("p1", *members), turn + b"second turn") == ["p2"]


def test_the_shortest_queue_wins_when_loads_differ_by_more_than_a_prompt_is_worth() -> None:
    full = member("full", knowing(LONG, busy=4, queued=2))

    assert chosen(view("x", full, member("idle", knowing()))) == ["idle"]


def test_a_short_prompt_is_not_worth_a_hop() -> None:
    text = bytes(BLOCK - 1)

    assert chosen(view("here", member("here", knowing()), member("peer", knowing(text))), text) == ["here"]


def test_the_route_says_that_the_prompt_is_cached() -> None:
    seen = view("x", member("p1", knowing(LONG)), member("p2", knowing()))
    first, second = rank(seen, "m", request_id="r1", prompt=Prompt(QUESTION))

    assert first.why == "forwarded: 2 hold it, prompt cached"
    assert (first.terms["prefix"], second.terms["prefix"]) == (0.0, 1.5)


def test_a_few_requests_look_past_the_cache() -> None:
    seen = view("x", *(member(f"p{i}", knowing(LONG) if i == 0 else knowing()) for i in range(4)))
    counts = Counter(next(rank(seen, "m", request_id=f"r{i}", prompt=Prompt(QUESTION))).node for i in range(2000))

    assert 1900 < counts[NodeId("p0")] < 2000


def test_requests_of_one_session_go_to_one_node_while_nothing_else_is_known() -> None:
    seen = view("x", *(member(f"p{i}", model()) for i in range(8)))
    of = [{next(rank(seen, "m", request_id=f"r{i}", session=f"s{s}")).node for i in range(20)} for s in range(20)]

    assert all(len(nodes) == 1 for nodes in of)
    assert len(set.union(*of)) > 3


def test_who_failed_lately_is_asked_when_nobody_else_can() -> None:
    seen = view(
        "x",
        member("failing", model()),
        member("fine", model(busy=4)),
        member("suspect", model(), state=NodeState.SUSPECT),
    )
    order = [(c.node, c.why.rpartition(", ")[2]) for c in rank(seen, "m", failing={"failing"})]  # type: ignore[arg-type]

    assert order == [("fine", "forwarded: holds it"), ("failing", "failed lately"), ("suspect", "under suspicion")]


def by_prefix(seen: MeshView, number: int, prompt: bytes) -> str:
    return next(rank(seen, "m", request_id=f"r{number}", prompt=Prompt(prompt))).node


def round_robin(seen: MeshView, number: int, prompt: bytes) -> str:
    return f"r{number % 4}"


@pytest.mark.parametrize("concurrency", [4, 12])
def test_agents_have_their_growing_prompts_read_once(concurrency: int) -> None:
    work = {"conversations": 24, "turns": 10}
    ours = run(agents(**work), by_prefix, concurrency=concurrency)
    theirs = run(agents(**work), round_robin, concurrency=concurrency)

    assert ours.again <= 0.1 * theirs.again
    assert ours.read <= 0.4 * theirs.read
    assert max(ours.served.values()) <= 1.5 * ours.served.total() / 4


@pytest.mark.parametrize("concurrency", [4, 16])
def test_what_everybody_asks_for_is_soon_answered_everywhere(concurrency: int) -> None:
    outcome = run(one_hot_prefix(), by_prefix, concurrency=concurrency)

    assert max(outcome.served.values()) <= 1.5 * outcome.served.total() / 4
    assert outcome.again <= 4 * 32 * 1024
