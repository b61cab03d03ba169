"""What can stop a node or a command. Each is shown as one line; `hint` says what to do.

* NodeError
    * ConfigError        a setting is unknown or has no sense
    * StartError         the node cannot start: port taken, data folder not writable
    * CommandError       a command cannot do what it was asked to
"""


class NodeError(Exception):
    """Base of every error a person at the terminal may see."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(NodeError):
    """A setting is unknown or has no sense."""


class StartError(NodeError):
    """The node cannot start."""


class CommandError(NodeError):
    """A command cannot do what it was asked to."""
