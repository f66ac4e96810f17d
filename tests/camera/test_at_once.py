"""No case that fails goes unnoticed beside others that do not."""

import pytest

from tests.camera.at_once import MOST, at_once


def test_each_case_that_fails_is_told_and_all_others_are_run() -> None:
    seen: list[tuple[int, str]] = []

    @at_once((number, "word") for number in range(3 * MOST))
    def test(number: int, word: str) -> None:
        seen.append((number, word))
        assert number not in (2, 9)

    for _ in range(2):
        seen.clear()
        with pytest.raises(ExceptionGroup, match=f"2 of {3 * MOST} cases") as caught:
            test()
        assert [error.__notes__ for error in caught.value.exceptions] == [
            ["the case: (2, 'word')"],
            ["the case: (9, 'word')"],
        ]
        assert sorted(seen) == [(number, "word") for number in range(3 * MOST)]


def test_without_a_failure_there_is_none() -> None:
    at_once([(1,), (2,)])(lambda number: None)()
