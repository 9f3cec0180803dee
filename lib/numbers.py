"""Formats numbers for display: 38,124.90, 0.9767, 12,345."""

from collections.abc import Sequence
from decimal import Decimal
from math import floor, log10
from typing import Any, TypeGuard

MAX_DECIMALS = 6  # of numbers in one column


def shown_number(value: float) -> str:
    """A number with four significant digits, or from 1,000 up with separators and two decimals.

    Whole numbers, and numbers from a million up, have no decimals; huge or tiny ones are written
    as 1.235e-09.
    """
    size = abs(value)
    if isinstance(value, int):
        return f"{value:,}" if size < 10**16 else f"{Decimal(value):.3e}"
    if not 1000 <= size < 1e16:
        return f"{value:.4g}"
    return f"{value:,.0f}" if size >= 1e6 or value.is_integer() else f"{value:,.2f}"


def shown_alike(values: Sequence[float]) -> list[str]:
    """Numbers of one row or column, each with the same number of decimals, up to six."""
    texts = [shown_number(value) for value in values]
    wanted = min(max(map(decimals, texts), default=0), MAX_DECIMALS)
    return [
        f"{value:,.{wanted}f}"
        if is_number(value) and "e" not in text and decimals(text) < wanted
        else text
        for value, text in zip(values, texts, strict=True)
    ]


def shown_beside(values: Sequence[float], other: float) -> list[str]:
    """As `shown_alike`, with more digits for one that would wrongly look equal to `other`."""
    same = read_number(shown_number(other))
    return [
        longer(value, other)
        if value != other and same in map(read_number, (text, shown_number(value)))
        else text
        for value, text in zip(values, shown_alike(values), strict=True)
    ]


def read_number(text: str) -> float:
    """The number that a shown one says."""
    return float(text.replace(",", ""))


def longer(value: float, other: float) -> str:
    """A number with as many digits as distinguish it from another."""
    pairs = ((f"{value:,.{n}g}", f"{other:,.{n}g}") for n in range(5, 18))
    return next((own for own, others in pairs if own != others), shown_number(value))


def shown_change(before: float, after: float) -> str:
    """The signed difference, with as many decimals as the numbers, or more if it would be 0."""
    by = after - before
    wanted = max(map(decimals, shown_alike([before, after])))
    if by and abs(by) < 0.5 * 10.0**-wanted:  # would be shown as 0: use two digits
        wanted = 1 - floor(log10(abs(by)))
    return f"{by:+,.{wanted}f}" if wanted <= MAX_DECIMALS else f"{by:+.4g}"


def decimals(text: str) -> int:
    """The number of decimals in a formatted number without an exponent."""
    return 0 if "e" in text else len(text.partition(".")[2])


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number, and not a bool."""
    return numeric(value) and abs(value) < 1e300


def numeric(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, finite or not, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
