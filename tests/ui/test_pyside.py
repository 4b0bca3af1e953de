"""Guards against faults of PySide6 itself that would take the window down."""

from __future__ import annotations

import sys

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

CALLS = 1000


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal: a lost reference cannot show or hurt")
def test_calls_without_a_result_keep_their_reference_to_none(qtbot: QtBot) -> None:
    """PySide6 6.12.0 loses one reference to None in every such call; after about 5,000 the process aborts."""
    label = QLabel()
    qtbot.addWidget(label)
    label.setText("first")
    before = sys.getrefcount(None)
    for _ in range(CALLS):
        label.setText("text")
    assert abs(sys.getrefcount(None) - before) < CALLS // 10
