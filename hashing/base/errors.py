"""The errors a user can cause. Everything else that is raised is a bug of ours."""


class EngramError(Exception):
    """The data or the world is wrong (exit code 1): what, where, expected, found, in one sentence."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EngramError):
    """The call is wrong (exit code 2)."""

    exit_code = 2
