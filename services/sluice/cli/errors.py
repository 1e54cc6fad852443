"""How a command ends that cannot be done: a sentence on standard error, and an exit code."""

FAILED, WRONG_USAGE, NOT_REACHABLE = 1, 2, 3


class CommandError(Exception):
    """The sentence says what was expected, what came, and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        self.code = code
        super().__init__(message)
