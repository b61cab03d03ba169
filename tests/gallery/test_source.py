"""Where a model comes from, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery.errors import SourceError
from gallery.source import (
    EntrySource,
    FileSource,
    HubSource,
    RegistrySource,
    UrlSource,
    file_name,
    name_problem,
    parse_source,
    suggested_name,
)


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("qwen3-4b", EntrySource("qwen3-4b"), "qwen3-4b"),
        ("qwen3-4b:Q8_0", EntrySource("qwen3-4b", "Q8_0"), "qwen3-4b"),
        ("hf://Org/Repo-GGUF", HubSource("Org/Repo-GGUF"), "repo"),
        ("hf://Org/Repo-GGUF:Q4_K_M@abc", HubSource("Org/Repo-GGUF", "Q4_K_M", "abc"), "repo-q4_k_m"),
        ("ollama://llama3.2", RegistrySource("registry.ollama.ai", "library/llama3.2", "latest"), "llama3.2"),
        ("ollama://me/mine:1b", RegistrySource("registry.ollama.ai", "me/mine", "1b"), "mine-1b"),
        ("ollama://h.example:5000/a/b:t", RegistrySource("h.example:5000", "a/b", "t"), "b-t"),
        ("oci://ghcr.io/org/model:v1", RegistrySource("ghcr.io", "org/model", "v1"), "model-v1"),
        ("https://h/a/My%20Model.gguf?x=1", UrlSource("https://h/a/My%20Model.gguf?x=1"), "my-model"),
        ("http://h/big-00001-of-00003.gguf", UrlSource("http://h/big-00001-of-00003.gguf"), "big"),
        ("file:///a/b.gguf", FileSource("/a/b.gguf"), "b"),
    ],
)
def test_sources_are_understood_and_suggest_a_name(text: str, source: object, name: str) -> None:
    assert parse_source(text) == source
    assert suggested_name(parse_source(text)) == name


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SourceError, match="netrc") as refused:
        parse_source("https://me:secret@h.example/x.gguf")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a/b",
        "hf://",
        "hf://a",
        "hf://a/b/c",
        "hf://../b",
        "ollama://",
        "oci://host",
        "gopher://x",
        "file://x/y",
        "ollama://a:../../x",
        "hf://a/b\nc",
        "x" * 3000,
    ],
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)


@pytest.mark.parametrize("name", ["", ".hidden", "../x", "a/b", "a b", "x.gguf", "x.yaml", "-x", "x" * 101, "a\n"])
def test_names_that_would_not_be_safe_files_are_refused(name: str) -> None:
    assert name_problem(name)


@given(st.text(max_size=80))
def test_every_source_suggests_a_name_that_can_be_used(text: str) -> None:
    for scheme in ("https://h/", "file:///"):
        try:
            source = parse_source(scheme + text)
        except SourceError:
            continue
        assert name_problem(suggested_name(source)) is None


@given(st.text(max_size=80))
def test_a_foreign_path_never_leaves_its_folder(path: str) -> None:
    try:
        name = file_name(path)
    except SourceError:
        return
    assert "/" not in name
    assert not name.startswith(".")
