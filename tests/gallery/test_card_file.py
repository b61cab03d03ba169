"""Cards as people write them, right and wrong."""

from pathlib import Path

import pytest

from backends.__main__ import ENGINES as RUNNABLE
from gallery.card import ENGINES
from gallery.card_file import CardEntry, parse_card, parse_index
from gallery.errors import CardError

PATH = Path("models/my.yaml")


def test_a_card_says_what_its_writer_wants() -> None:
    card = parse_card(
        """
        engine: echo
        description: Slow on purpose.
        aliases: [slow, "slow:latest"]
        capabilities: [chat]
        keep_alive: 90
        settings:
          token_interval: 0.05
          reply: "yes"
          nested: {a: [1, null, true]}
        """,
        PATH,
    )

    assert card == CardEntry(
        engine="echo",
        description="Slow on purpose.",
        aliases=("slow", "slow:latest"),
        capabilities=("chat",),
        keep_alive=90.0,
        settings={"token_interval": 0.05, "reply": "yes", "nested": {"a": [1, None, True]}},
    )


def test_an_empty_card_leaves_everything_to_the_catalog() -> None:
    assert parse_card("# nothing yet\n", PATH) == CardEntry()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("engin: echo", "my.yaml:1: unknown key 'engin'; did you mean 'engine'?", id="a typo"),
        pytest.param(
            "engine: echo\nzzz: 1",
            "my.yaml:2: unknown key 'zzz'; known are aliases, capabilities, description, draft_model,",
            id="nothing like it",
        ),
        pytest.param("engine: echo\nengine: llama", "my.yaml:2: 'engine' is there twice", id="twice"),
        pytest.param("engine: 7", "my.yaml:1: engine must be a text", id="a number for a text"),
        pytest.param("engine: lama", "my.yaml:1: unknown engine 'lama'; did you mean 'llama'?", id="a misspelt engine"),
        pytest.param("engine: x", "my.yaml:1: unknown engine 'x'; known are diffusers, echo", id="no such engine"),
        pytest.param("engine:", "my.yaml:1: engine must be a text", id="nothing for a text"),
        pytest.param("aliases: slow", "my.yaml:1: aliases must be a list", id="a text for a list"),
        pytest.param("aliases: [' x']", "has characters that cannot be seen", id="an impossible alias"),
        pytest.param("settings: fast", "my.yaml:1: expected `key: value` lines", id="settings that are none"),
        pytest.param("settings: {when: 2026-01-01}", "settings may hold texts, numbers", id="not JSON"),
        pytest.param("settings: {x: .nan}", "settings may hold texts, numbers", id="not a number"),
        pytest.param("settings: {x: !!python/object:os.system 1}", "settings may hold", id="code"),
        pytest.param("capabilities: [fly]", "unknown capability 'fly'; known are", id="unknown capability"),
        pytest.param("- engine: echo", "my.yaml:1: expected `key: value` lines", id="a list"),
        pytest.param("engine: [", "my.yaml:1: is not valid YAML", id="not YAML"),
        pytest.param("a: &x [*x]", "my.yaml", id="a loop"),
        pytest.param("\x00", "is not valid YAML", id="a binary file"),
        pytest.param("#" * 300_000, "is too large for a model card", id="something else"),
    ],
)
def test_a_wrong_card_is_refused_naming_file_and_line(text: str, complaint: str) -> None:
    with pytest.raises(CardError) as caught:
        parse_card(text, PATH)

    assert complaint in str(caught.value)


def test_a_settings_loop_is_refused() -> None:
    with pytest.raises(CardError):
        parse_card("settings: &x {again: *x}", PATH)


def test_an_index_names_its_models() -> None:
    entries = parse_index("models:\n  a: {engine: echo}\n  b: {path: b.gguf}\n", PATH)

    assert entries == {"a": CardEntry(engine="echo"), "b": CardEntry(path="b.gguf")}


def test_an_index_with_a_wrong_model_names_its_line() -> None:
    with pytest.raises(CardError, match=r"my\.yaml:3: unknown key 'pat'; did you mean 'path'\?"):
        parse_index("models:\n  b:\n    pat: b.gguf\n", PATH)


def test_the_engines_of_cards_are_those_that_can_be_run() -> None:
    # A lender runs parts of other nodes' models, none of its own.
    assert set(ENGINES) == set(RUNNABLE) - {"lender"}
