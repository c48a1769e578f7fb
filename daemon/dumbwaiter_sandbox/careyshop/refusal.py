"""A refusal of the shop."""


class RefusedError(Exception):
    """The operation is refused: its message, and the status of the newer servers."""

    def __init__(self, message: str, newer: int = 500) -> None:
        super().__init__(message)
        self.newer = newer
