"""Numbers as people write them, wherever results are shown: 38,124.90, 0.9767, 12,345."""

from collections.abc import Sequence
from decimal import Decimal
from math import floor, log10
from typing import Any, TypeGuard

MOST_DECIMALS = 6  # of numbers below each other


def shown_number(value: float) -> str:
    """Thousands apart; two decimals from 1,000 up and none from a million, else four digits.

    A whole number has no decimals; what is huge or tiny is written as 1.235e-09.
    """
    size = abs(value)
    if isinstance(value, int):
        return f"{value:,}" if size < 10**16 else f"{Decimal(value):.3e}"
    if not 1000 <= size < 1e16:
        return f"{value:.4g}"
    return f"{value:,.0f}" if size >= 1e6 or value.is_integer() else f"{value:,.2f}"


def shown_alike(values: Sequence[float]) -> list[str]:
    """Numbers that stand below or beside each other: each with as many decimals, up to six."""
    texts = [shown_number(value) for value in values]
    wanted = min(max(map(decimals, texts), default=0), MOST_DECIMALS)
    return [
        f"{value:,.{wanted}f}"
        if is_number(value) and "e" not in text and decimals(text) < wanted
        else text
        for value, text in zip(values, texts, strict=True)
    ]


def shown_beside(values: Sequence[float], other: float) -> list[str]:
    """As `shown_alike`; one that would read as the other number, and is not it, has more digits."""
    same = shown_number(other)
    return [
        longer(value, other) if value != other and shown_number(value) == same else text
        for value, text in zip(values, shown_alike(values), strict=True)
    ]


def longer(value: float, other: float) -> str:
    """A number, with as many digits as tell it from another one."""
    pairs = ((f"{value:,.{n}g}", f"{other:,.{n}g}") for n in range(5, 18))
    return next((own for own, others in pairs if own != others), shown_number(value))


def shown_change(before: float, after: float) -> str:
    """By how much a number differs, to the decimals that it is shown with, or to more if needed."""
    by = after - before
    wanted = max(map(decimals, shown_alike([before, after])))
    if by and abs(by) < 0.5 * 10.0**-wanted:  # would be shown as none: to two digits, then
        wanted = 1 - floor(log10(abs(by)))
    return f"{by:+,.{wanted}f}" if wanted <= MOST_DECIMALS else f"{by:+.4g}"


def decimals(text: str) -> int:
    """How many digits stand behind the point of a number that has no exponent."""
    return 0 if "e" in text else len(text.partition(".")[2])


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be subtracted: a finite number, and no truth value."""
    return numeric(value) and abs(value) < 1e300


def numeric(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
