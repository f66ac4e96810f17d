"""Cases of one test side by side: with cameras that send in real time nearly all that a case does is wait."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MOST = 8  # threads, and the cameras that they watch: all in one interpreter


def at_once(cases: Iterable[tuple[Any, ...]]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Decorates a test that takes what each case holds. All cases that fail are told, by an ExceptionGroup."""

    chosen = list(cases)

    def decorated(test: Callable[..., None]) -> Callable[[], None]:
        def together() -> None:
            with ThreadPoolExecutor(min(MOST, len(chosen))) as pool:
                failures = [error for error in pool.map(lambda case: _failure(test, case), chosen) if error]
            if failures:
                raise ExceptionGroup(f"{len(failures)} of {len(chosen)} cases", failures)

        together.__name__, together.__doc__, together.__module__ = test.__name__, test.__doc__, test.__module__
        return together

    return decorated


def _failure(test: Callable[..., None], case: tuple[Any, ...]) -> Exception | None:
    try:
        test(*case)
    except Exception as error:
        error.add_note(f"the case: {case}")
        return error
    return None
