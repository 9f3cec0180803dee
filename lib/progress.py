"""Shows the progress of long steps: a bar on a terminal, some lines in a log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)


class Advance(Protocol):
    """Reports that one more item is done, or that `done` are in all, with a text to show."""

    def __call__(self, said: str = "", done: int | None = None) -> None:
        """Show it."""


@contextmanager
def progress(label: str, total: int, every: int = 1) -> Iterator[Advance]:
    """Yields a function to call after each of `total` items.

    Args:
        label: what the items are.
        total: the number of items, at most.
        every: the number of items for each line in a log.
    """
    terminal = sys.stderr.isatty()
    with logging_redirect_tqdm(), tqdm(total=total, desc=label, disable=not terminal) as bar:
        reached = 0

        def advance(said: str = "", done: int | None = None) -> None:
            nonlocal reached
            before, reached = reached, done or reached + 1
            bar.set_postfix_str(said, refresh=False)
            bar.update(reached - before)
            if not terminal and (reached % every == 0 or reached == total):
                logger.info("%s %d/%d %s", label, reached, total, said)

        yield advance
