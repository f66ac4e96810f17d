"""What is kept behind a relay that lost packets: the table of docs/engine.md. `make damage`."""

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from multiprocessing import get_context

from tests.engine.upstream import (
    CODECS,
    DIFFERENCE,
    FILMS,
    FPS,
    GROUP_PICTURES,
    GROUPS,
    HEIGHT_PX,
    KINDS,
    LOSSES,
    WIDTH_PX,
    Codec,
    Kind,
    Outcome,
    with_losses,
    without_loss,
)

_SEEDS, _PROCESSES = 200, 2
_NAMES: Mapping[Codec, str] = {"h264": "H.264", "hevc": "H.265", "mpeg4": "MPEG-4"}

Cell = tuple[Codec, Kind]


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    cells = list(itertools.product(CODECS, KINDS))
    tasks = [(codec, kind, seed) for codec, kind in cells for seed in range(arguments.seeds)]
    found: defaultdict[Cell, Outcome] = defaultdict(Outcome)
    with get_context("spawn").Pool(_PROCESSES) as pool:
        for done, (cell, outcome) in enumerate(pool.imap(_played, tasks, chunksize=20), 1):
            found[cell] += outcome
            _show(done, len(tasks))
        clean = dict(zip(CODECS, pool.map(without_loss, CODECS), strict=True))
    print("\n".join(table(found, clean, arguments.seeds)))
    return 0


def table(found: Mapping[Cell, Outcome], clean: Mapping[Codec, Outcome], seeds: int) -> Iterator[str]:
    """In Markdown. `clean`: of the same films without a loss."""
    date = datetime.now(UTC).date().isoformat()
    yield f"| {date}, {seeds} seeds | lost | frames kept | of these wrong | rejected | rejected without a loss |"
    yield "|---|---|---|---|---|---|"
    for codec, kind in itertools.product(CODECS, KINDS):
        one, whole = found[codec, kind], clean[codec]
        refused = f"{whole.rejected + whole.differing} of {FILMS * GROUPS * GROUP_PICTURES}"
        name = f"{_NAMES[codec]}, {kind}"
        yield f"| {name} | {one.losses} | {one.kept} | {one.differing} | {one.rejected} | {refused} |"
    yield ""
    yield (
        f"Films of {GROUPS} groups of {GROUP_PICTURES} pictures of {WIDTH_PX} x {HEIGHT_PX}, {FPS} a second, each a "
        f"sample; {LOSSES} losses each. Wrong: a sample of luma or chroma is more than {DIFFERENCE} levels off."
    )


def _played(task: tuple[Codec, Kind, int]) -> tuple[Cell, Outcome]:
    codec, kind, seed = task
    return (codec, kind), with_losses(codec, kind, seed)


def _show(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"\r{done} of {of} films", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.damage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=_SEEDS, metavar="N", help="films for each cell (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
