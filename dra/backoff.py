"""How long to wait before trying again: an iterator of seconds. It never sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def delays(random: Callable[[], float], *, first_seconds: float, cap_seconds: float, factor: float = 2.0) -> Iterator[float]:
    """Growing delays without end, each spread over its upper half so that a thousand nodes do not come back at once.

    Args:
        random: returns a number in [0, 1), e.g. `random.random`.
        first_seconds: centre of the first delay's range is 3/4 of it.
        cap_seconds: no delay is longer.
    """
    delay = first_seconds
    while True:
        yield delay * (0.5 + random() / 2)
        delay = min(delay * factor, cap_seconds)
