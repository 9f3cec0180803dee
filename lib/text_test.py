"""Text from other sources becomes one line without control characters."""

import pytest

from lib.text import cell, one_line, prose, shown_address, without_password


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
def test_a_text_is_one_line_with_control_characters_shown(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host:5000/a", "http://host:5000/a"),
        ("http://user:s3cr@t-word@host/a", "http://host/a"),
        ("http://user:a b@host", "http://host"),
        ("http://user:pa/ss@host:1/x", "http://host:1/x"),
        ("http://user:pa#ss?@host", "http://host"),
        ("http://token@host", "http://host"),
        ("http://host/models/m@champion", "http://host/models/m@champion"),
        ("user:password@host", "host"),
        ("s3://bucket/dvc", "s3://bucket/dvc"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_user_and_password(address, shown):
    assert shown_address(address) == shown


def test_texts_contain_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_URL", "http://user:a b/c@host")
    text = "https://u:p@q@other/x?y=1 refused; http://user:a b/c@host/api too (a@b)"
    assert without_password(text) == "https://other/x?y=1 refused; http://host/api too (a@b)"


def test_a_message_keeps_code_and_no_other_markup():
    text = "`git checkout <commit>` <b> ![x](y) $z$ `"
    assert prose(text) == r"`git checkout <commit>` \<b> ![x\](y) \$z\$ `"
    assert cell("a|b `c` [x](y)") == r"a\|b \`c\` [x\](y)"
