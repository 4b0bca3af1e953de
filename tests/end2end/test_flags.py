"""The flags of settings: what is out of bounds is said with the allowed range, before anything is loaded."""

from __future__ import annotations

import pytest

from kvdesk import cli


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--max-tokens", "-1", "of at least 0"),
        ("--repeat-penalty", "0", "from 0.01 to 5.0"),
        ("--temperature", "nan", "from 0.0 to 5.0"),
        ("--top-p", "5", "from 0.0 to 1.0"),
        ("--seed", "99999999999", "from -1 to 4294967294"),
        ("--gpu-layers", "-2", "of at least -1"),
        ("--top-k", "many", "a whole number"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_range(
    flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["chat", "no-such.gguf", "-p", "hello", f"{flag}={value}"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert flag in said
    assert allowed in said
