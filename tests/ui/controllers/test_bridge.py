"""controllers/bridge.py: what other threads call arrives on the UI thread, in order, and nothing after the end."""

from __future__ import annotations

import threading
from typing import Any

from pytestqt.qtbot import QtBot

from kvdesk.ui.controllers.bridge import Bridge


def test_calls_of_another_thread_arrive_here_in_their_order(bridge: Bridge, qtbot: QtBot) -> None:
    arrived: list[tuple[int, int]] = []
    take = bridge.here(lambda number: arrived.append((number, threading.get_ident())))
    thread = threading.Thread(target=lambda: [take(number) for number in range(100)])
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: len(arrived) == 100)
    assert arrived == [(number, threading.get_ident()) for number in range(100)]


def test_the_result_of_work_and_its_exception_both_arrive(bridge: Bridge, qtbot: QtBot) -> None:
    def fail() -> None:
        raise ValueError("no")

    results: list[Any] = []
    bridge.in_background(lambda: 7, results.append)
    bridge.in_background(fail, results.append)
    qtbot.waitUntil(lambda: len(results) == 2)
    assert 7 in results
    assert any(isinstance(one, ValueError) for one in results)


def test_nothing_arrives_after_the_end(qtbot: QtBot) -> None:
    bridge = Bridge()
    arrived: list[int] = []
    take = bridge.here(arrived.append)
    bridge.close()
    take(1)
    qtbot.wait(1)  # the event loop has gone round
    assert arrived == []
