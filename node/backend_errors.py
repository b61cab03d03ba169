"""What can go wrong between this node and its backends.

* BackendError
    * BackendCallError        the backend answered: this one call failed, with a status of the protocol
    * BackendLostError        the process or the connection is gone; another backend may do better
    * BackendLoadError        the model cannot be loaded here; the message says why
    * BackendLoadingError     it is still loading, and the waiter's patience is over
    * BackendStoppedError     it was unloaded, or this node is stopping

Only `BackendCallError` speaks about the request. The others speak about the place it was sent to.
"""


class BackendError(Exception):
    """Base of every error about a backend."""


class BackendCallError(BackendError):
    """The backend refused or broke this call.

    `status` is the gRPC status name ("INVALID_ARGUMENT"), `code` the stable code of
    `proto/backend.proto` ("context_length_exceeded") and `param` the request field at fault or "".
    """

    def __init__(self, status: str, code: str, message: str, param: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


class BackendLostError(BackendError):
    """The backend's process or connection ended under the call."""


class BackendLoadError(BackendError):
    """The model cannot be loaded here, by the engine's own word or because its process keeps dying.

    `retry_after` is in how many seconds an ordinary request makes this node try again.
    """

    def __init__(self, message: str, *, code: str = "load_failed", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class BackendLoadingError(BackendError):
    """The model is still loading; the load goes on without this waiter."""

    def __init__(self, message: str, *, fraction: float = 0.0, stage: str = "") -> None:
        super().__init__(message)
        self.fraction = fraction
        self.stage = stage


class BackendStoppedError(BackendError):
    """The model was unloaded while someone waited for it, or this node is stopping."""
