"""How often one request may be tried."""

from node.attempts import MOST, MOST_CRASHES, MOST_LOST, MOST_PAUSES, Attempts
from node.failure import BACKEND_LOST, NODE_LOST, NOT_CONNECTED, CallFailure

BUSY = CallFailure("RESOURCE_EXHAUSTED", "queue_full", "full")
CRASH = CallFailure("UNAVAILABLE", BACKEND_LOST, "it died")
UNSENT = CallFailure("UNAVAILABLE", NOT_CONNECTED, "not connected")


def after(*failures: CallFailure) -> Attempts:
    attempts = Attempts()
    for number, failure in enumerate(failures):
        attempts.begin(f"node {number}")
        attempts.fail(failure)
    return attempts


def test_a_few_nodes_may_fail_it() -> None:
    assert not after(*[BUSY] * (MOST - 1)).is_spent
    assert after(*[BUSY] * MOST).is_spent


def test_a_token_makes_up_for_earlier_failures_and_their_nodes_may_be_asked_again() -> None:
    attempts = after(*[BUSY] * (MOST - 1))
    attempts.begin("good")
    attempts.progress("good")
    assert attempts.tried == ["good"]

    attempts.fail(BUSY)

    assert not attempts.is_spent


def test_only_the_node_that_gave_the_token_counts_as_tried_after_it() -> None:
    attempts = Attempts()
    for node in ("silent", "helper", "other helper"):
        attempts.begin(node)

    attempts.progress("helper")

    assert attempts.tried == ["helper"]


def test_lost_nodes_are_no_failures_of_the_request_up_to_a_limit() -> None:
    assert not after(*[NODE_LOST] * (MOST_LOST - 1)).is_spent
    assert after(*[NODE_LOST] * MOST_LOST).is_spent


def test_a_node_that_never_got_it_costs_nothing() -> None:
    assert not after(*[UNSENT] * 100).is_spent


def test_two_dead_backends_are_enough_whatever_came_between() -> None:
    attempts = after(*[CRASH] * (MOST_CRASHES - 1))
    attempts.begin("good")
    attempts.progress("good")
    attempts.fail(CRASH)

    assert attempts.is_spent


def test_when_all_nodes_are_gone_they_are_tried_again_for_a_while() -> None:
    attempts = after(NODE_LOST, UNSENT)

    for _ in range(MOST_PAUSES):
        assert attempts.pause(UNSENT)
        assert attempts.tried == []
        attempts.begin("a")
    assert not attempts.pause(UNSENT)


def test_nobody_waits_for_nodes_that_are_there_and_cannot() -> None:
    assert not after(BUSY).pause(BUSY)
