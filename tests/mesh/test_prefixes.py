"""Sketches of cached prompts: what they know of another prompt, and what they may cost."""

import random
import zlib

from hypothesis import given
from hypothesis import strategies as st

from mesh.prefixes import BLOCK, MOST_BLOCKS, MOST_HASHES, Prompt, PromptMemory, popular_mark
from tests.helpers.prompt_workloads import shared_bytes

TEXTS = st.lists(st.binary(min_size=BLOCK, max_size=BLOCK), max_size=40).map(b"".join)


def memory_of(*texts: bytes, prompts: int = 8) -> PromptMemory:
    memory = PromptMemory(prompts)
    for text in texts:
        memory.add(Prompt(text))
    return memory


@given(TEXTS, TEXTS, TEXTS)
def test_a_sketch_knows_what_two_prompts_share_from_their_beginning(start: bytes, one: bytes, other: bytes) -> None:
    shared = len(start)
    while shared < min(len(start + one), len(start + other)) and (start + one)[shared] == (start + other)[shared]:
        shared += 1

    known = shared_bytes(Prompt(start + other), memory_of(start + one).sketch())

    # Exactly up to eight blocks, or to the end of the prompt; else to within a quarter.
    blocks = shared // BLOCK
    is_exact = blocks <= 8 or blocks == len(start + one) // BLOCK
    assert known // BLOCK <= blocks
    assert known // BLOCK == blocks if is_exact else known // BLOCK >= blocks * 4 // 5


def test_the_same_words_behind_another_beginning_are_not_known() -> None:
    text = bytes(BLOCK) * 4

    assert shared_bytes(Prompt(b"x" * BLOCK + text), memory_of(text).sketch()) == 0


def test_what_is_shorter_than_a_block_is_not_compared() -> None:
    assert not Prompt(b"x" * (BLOCK - 1))


@given(st.integers(0, 70 * BLOCK), st.randoms(use_true_random=False))
def test_a_hash_is_that_of_everything_before_it_in_whichever_order_they_are_asked_for(
    length: int, rng: random.Random
) -> None:
    text = rng.randbytes(length)
    expected = [zlib.crc32(text[: BLOCK * (number + 1)]) for number in range(length // BLOCK)]
    prompt = Prompt(text)
    order = rng.sample(range(len(expected)), len(expected))

    assert [prompt[number] for number in order] == [expected[number] for number in order]
    prompt.keep()
    assert list(prompt) == expected


def test_the_oldest_prompts_are_forgotten_as_the_engine_forgets_them() -> None:
    a, b, c = (bytes([number]) * BLOCK * 3 for number in range(3))
    memory = memory_of(a, b, a, c, prompts=2)

    known = [shared_bytes(Prompt(text), memory.sketch()) > 0 for text in (a, b, c)]

    assert known == [True, False, True]


def test_a_sketch_is_small_and_keeps_beginnings_of_the_newest() -> None:
    long = [bytes([number]) * BLOCK * 900 for number in range(20)]
    sketch = memory_of(*long, prompts=20).sketch()

    assert len(sketch) <= MOST_HASHES
    assert shared_bytes(Prompt(long[19]), sketch) == len(long[19]) // BLOCK * BLOCK
    assert [shared_bytes(Prompt(text), sketch) < len(text) for text in long].count(True) > 3
    assert shared_bytes(Prompt(long[0]), sketch) == 0


def test_a_sketch_holds_no_more_than_the_engine_can_keep() -> None:
    texts = [bytes([number]) * BLOCK * 10 for number in range(3)]
    memory = memory_of(*texts)

    known = [shared_bytes(Prompt(text), memory.sketch(most=15)) // BLOCK for text in texts]

    assert known == [0, 5, 10]


def test_every_turn_of_long_conversations_finds_its_past() -> None:
    """Twelve of 100 KB each: their blocks would fill a sketch ten times over."""
    texts = [bytes([number]) * 100 * 1024 for number in range(12)]
    sketch = memory_of(*texts, prompts=12).sketch()

    for text in texts:
        assert shared_bytes(Prompt(text + b"and then?" * 100), sketch) == len(text)


def test_a_prompt_of_any_length_has_a_bounded_number_of_hashes() -> None:
    assert len(Prompt(bytes(BLOCK * (MOST_BLOCKS + 9)))) == MOST_BLOCKS


def popularity(*texts: bytes, question: bytes) -> bool:
    hashes, sketch = Prompt(question), memory_of(*texts).sketch()
    known = shared_bytes(hashes, sketch) // BLOCK
    return known > 0 and popular_mark(hashes[known - 1]) in sketch


START = bytes(BLOCK * 4)


def test_a_beginning_of_many_prompts_is_popular() -> None:
    texts = [START + bytes([number]) * BLOCK for number in range(1, 6)]

    assert popularity(*texts, question=START + b"?" * BLOCK)
    assert popularity(*[START + b"short"] * 5, question=START + b"?")


def test_the_past_of_one_conversation_is_not() -> None:
    turns = [START + b"turn" * BLOCK * number for number in range(1, 9)]

    assert not popularity(*turns, question=turns[-1] + b"more" * BLOCK)


def test_a_conversation_that_began_as_many_do_is_its_own_from_there_on() -> None:
    texts = [START + bytes([number]) * BLOCK for number in range(1, 6)]

    assert not popularity(*texts, question=texts[2] + b"more" * BLOCK)
