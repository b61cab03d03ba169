"""Settings: where they come from, and what is said about a wrong one."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.cli import main, up
from node.config import SETTINGS, NodeConfig, read_config_file
from node.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shoal.toml"
    path.write_text(text)
    return path


def test_every_setting_is_a_flag_and_every_flag_a_setting() -> None:
    flags = {parameter.name for parameter in up.params} - {"config", "invite"}

    assert flags == SETTINGS


def test_every_flag_has_a_variable_named_after_it() -> None:
    for parameter in up.params:
        assert isinstance(parameter, click.Option)
        assert parameter.envvar == f"SHOAL_{str(parameter.name).upper()}"


def test_a_misspelt_key_in_the_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, "mesh_prot = 4001\n")

    with pytest.raises(ConfigError, match="unknown setting 'mesh_prot'") as caught:
        read_config_file(path)
    assert "mesh_port" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('port = "x"', "port must be a whole number, not 'x'"),
        ("port = true", "port must be a whole number, not True"),
        ('peer = "a:1"', "peer must be a list of texts, not 'a:1'"),
        ("open = 1", "open must be true or false, not 1"),
        ("name = 7", "name must be a text, not 7"),
        ("grace = 'x'", "grace must be a number, not 'x'"),
        ("[name]", "name must be a text"),
    ],
)
def test_a_value_of_the_wrong_kind_names_the_file_and_the_key(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config_file(write(tmp_path, line))

    assert str(caught.value).startswith(f"{tmp_path}/shoal.toml: {said}")


def test_a_broken_file_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        read_config_file(write(tmp_path, "port = = 3\n"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"port": 70000}, id="port too large"),
        pytest.param({"mesh_port": -1}, id="negative port"),
        pytest.param({"grace": -1.0}, id="negative duration"),
        pytest.param({"name": ""}, id="empty name"),
        pytest.param({"name": "a\nb"}, id="name with a line break"),
        pytest.param({"log_level": "loud"}, id="unknown level"),
    ],
)
def test_a_value_without_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        NodeConfig(**wrong)  # type: ignore[arg-type]


def test_the_token_is_in_no_repr() -> None:
    assert "secret" not in repr(NodeConfig(token="secret"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """What `shoal up` would have started."""
    configs: list[NodeConfig] = []

    def run_node(config: NodeConfig) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr("node.serve.run_node", run_node)
    return configs


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(started: list[NodeConfig], tmp_path: Path) -> None:
    path = write(tmp_path, 'port = 1\nmesh_port = 1\ngrace = 1\npeer = ["a:1", "b:2"]\n')
    variables = {"SHOAL_PORT": "2", "SHOAL_MESH_PORT": "2"}

    result = CliRunner(env=variables).invoke(main, ["up", "--config", str(path), "--port", "3"])

    assert result.exit_code == 0, result.output
    [config] = started
    assert (config.port, config.mesh_port, config.grace, config.load_wait) == (3, 2, 1, 120)
    assert config.peer == ("a:1", "b:2")


def test_the_file_in_the_data_folder_is_read_when_none_is_named(started: list[NodeConfig], tmp_path: Path) -> None:
    write(tmp_path, 'name = "from-file"\n')

    result = CliRunner().invoke(main, ["up", "--data", str(tmp_path)])

    assert result.exit_code == 0, result.output
    assert started[0].name == "from-file"


def test_a_wrong_setting_is_one_line_and_a_hint(tmp_path: Path) -> None:
    path = write(tmp_path, "prot = 1\n")

    result = CliRunner().invoke(main, ["up", "--config", str(path)])

    assert result.exit_code == 1
    assert result.output.splitlines() == [f"shoal: {path}: unknown setting 'prot'", "  did you mean 'port'?"]


def test_a_misspelt_command_is_suggested() -> None:
    result = CliRunner().invoke(main, ["statsu"])

    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.output
