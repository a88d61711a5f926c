"""What ends the program with exit code 2, one clear sentence each."""

from __future__ import annotations


class Problem(Exception):
    """Its text is all that is printed."""


class Misused(Problem):
    """Flags or names that make no sense."""


class Missing(Problem):
    """What was named is not there."""


class Refused(Problem):
    """The API server said no; where it is a right that is missing, the text says which."""

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status
