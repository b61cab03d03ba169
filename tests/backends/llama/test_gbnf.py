"""Grammars that clients write: what is wrong is told with its place, and nothing hangs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidGrammarError
from backends.llama.constraints import schema_grammar
from backends.llama.gbnf import check_grammar
from backends.llama.logs import capture
from backends.llama.model import Model
from backends.llama.sampling import _grammar

RIGHT = [
    'root ::= "a"',
    '# a comment\nroot ::= greeting name? # more\ngreeting ::= "hi" |\n  "ho"\n\nname ::= [a-z]{1,8} | [^\\]\\n] | .\n',
    'root ::= ("a" | "b"\n  "c")* "\\x41\\u00e9\\U0001F600\\t\\""',
    'root ::= "a"{2} "b"{2,} "c"{0,3} "d"{0,5000} [0-9]+',
    "root ::= item*\nitem ::= (\n [a-z]\n)",
    'root ::= <[5]> !<[7]>* "x"',
    'root ::= "("  root ")" | "x"',
    "root ::= ",
    'root ::= "" | "a"',
    "root ::= a\r\na ::= [-z]",
]


@pytest.mark.parametrize("source", RIGHT)
def test_what_llama_cpp_takes_is_taken(source: str, model: Model) -> None:
    check_grammar(source)
    _grammar(model, source)


@pytest.fixture(scope="module")
def model() -> Model:
    capture()
    return Model("gallery/minnow/minnow.gguf", repack=False, on_progress=lambda _: True)


@pytest.mark.parametrize(
    ("source", "place", "reason"),
    [
        pytest.param("root ::= (", (1, 11), "expected ')'", id="an open group"),
        pytest.param('root ::= "a', (1, 10), "nothing closes this", id="an open text"),
        pytest.param("root ::= [a-z", (1, 10), "nothing closes this", id="an open set"),
        pytest.param('root ::= "a"\nx := "b"', (2, 3), "expected '::='", id="no definition"),
        pytest.param('root ::= "a" | foo', (1, 16), "no rule 'foo'", id="an unknown rule"),
        pytest.param('main ::= "a"', (1, 13), "no rule 'root'", id="no root"),
        pytest.param('root ::= "\\q"', (1, 11), "expected an escape", id="an unknown escape"),
        pytest.param('root ::= "a"{3,1}', (1, 14), "at least 3 and at most 1", id="repetitions the wrong way round"),
        pytest.param('root ::= "a"{x}', (1, 14), "expected a number", id="repetitions without a number"),
        pytest.param('root ::= "a"{9999}', (1, 14), "more than 2000", id="too many repetitions"),
        pytest.param("root ::= * ", (1, 10), "nothing to repeat", id="nothing to repeat"),
        pytest.param('root ::= "a" ) "b"', (1, 14), "end of the line", id="a stray bracket"),
        pytest.param('root ::= root "a"', (1, 1), "begins with itself", id="left recursion"),
        pytest.param('root ::= "x" a\na ::= b? a "y"\nb ::= "z"', (1, 14), "begins with itself", id="behind an option"),
        pytest.param('root ::= ("" | "a")*', (1, 1), "may be nothing", id="repeated nothing"),
        pytest.param('root ::= a root | .\na ::= b\nb ::= "" | "y"', (1, 1), "begins with itself", id="behind nothing"),
        pytest.param("root ::= <end", (1, 10), "expected a token", id="an open token"),
        pytest.param('root ::= "a"\n\n\n!', (4, 1), "expected a rule's name", id="no name"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(source: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(InvalidGrammarError) as caught:
        check_grammar(source)

    assert f"line {place[0]}, column {place[1]}: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("root ::= " + "(" * 100_000, id="groups in groups"),
        pytest.param('root ::= "' + "a" * 10_000 + '"{2000}', id="a long text many times"),
        pytest.param(
            "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(60)) + 'r60 ::= "a"',
            id="many ways to begin",
        ),
        pytest.param(
            "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(60_000)) + 'r60000 ::= "a"',
            id="a long way to begin",
        ),
        pytest.param("root ::= \0", id="a NUL"),
        pytest.param('root ::= "a"\n' * 100_000, id="too long"),
    ],
)
def test_what_is_too_much_is_refused_at_once(source: str) -> None:
    with pytest.raises(InvalidGrammarError):
        check_grammar(source)


@given(st.text(alphabet='root:=ab "[]()|*?{}1,2<>!\\\n#.^-', max_size=40).map(lambda text: f"root ::= {text}"))
def test_whatever_is_taken_is_taken_by_llama_cpp_too(model: Model, source: str) -> None:
    try:
        check_grammar(source)
    except InvalidGrammarError:
        return
    if "<" not in source and "{" not in source:  # These llama.cpp may refuse for its own reasons.
        _grammar(model, source)


def test_our_own_grammars_pass() -> None:
    check_grammar(schema_grammar({"type": "array", "items": {"type": "string", "pattern": "^[a-c]{2,40}$"}}))
