"""Text from elsewhere is one line, and steers nothing."""

import pytest

from lib.text import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nSource-Commit: b\r\n\u2028c", "a Source-Commit: b c"),
        ("\x1b[2Jgone\x07\x9b", r"\x1b[2Jgone\x07\x9b"),
        ("txt\u202egpj.exe\u2066", r"txt\u202egpj.exe\u2066"),
        ("no\u200bthing\ufeff", r"no\u200bthing\ufeff"),
        ("half\udcff", r"half\udcff"),
        ("naïve 数 👩\u200d🔬", "naïve 数 👩\u200d🔬"),
    ],
)
def test_a_text_is_one_line_with_its_control_characters_shown(text, shown):
    assert one_line(text) == shown
