"""controllers/memory.py without a window: samples, marks and the context reach what shows them; a death brings its card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PySide6.QtWidgets import QPushButton

from kvdesk.backend.engine.engine_event import Died, EngineState
from kvdesk.backend.gguf.model_file import ModelFile
from kvdesk.backend.planning.headroom_watch import RoomChanged
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.protocol.facts import Device
from kvdesk.backend.session_log.recording import Row
from kvdesk.errors import EngineDied
from kvdesk.ui.chat.composer import Composer
from kvdesk.ui.controllers.memory import LAST_MINUTE, MemoryController
from kvdesk.ui.memory.memory_dock import MemoryDock
from kvdesk.ui.panels.crash_card import CrashCard
from kvdesk.ui.panels.model_bar import ModelBar
from tests.fakes import memory_pictures as pictures
from tests.ui.controllers.conftest import Desk


@pytest.fixture
def shown(desk: Desk) -> SimpleNamespace:
    bar, composer = desk.widget(ModelBar), desk.widget(Composer)
    dock, card = desk.widget(MemoryDock), desk.widget(CrashCard)
    memory = MemoryController(dock, bar, composer, card)
    desk.follow(memory)
    return SimpleNamespace(desk=desk, memory=memory, bar=bar, card=card, composer=composer)


def test_a_death_brings_the_card_and_the_next_load_takes_it_away(shown: SimpleNamespace, tiny: ModelFile) -> None:
    shown.desk.load(tiny)
    for second in range(3):
        shown.memory.on_sample_taken(pictures.sample(second))
    shown.memory.on_row_written(Row("load", "A model was loaded."))
    shown.desk.take(Died(EngineDied("It was killed."), EngineState.READY, 0, Path("engine.log")))
    assert not shown.card.isHidden()
    assert "It was killed." in shown.card.sentence
    shown.desk.load(tiny)
    assert shown.card.isHidden()


def test_the_way_out_without_the_gpu_is_offered_where_the_gpu_may_have_done_it(
    shown: SimpleNamespace, tiny: ModelFile
) -> None:
    crashed = EngineDied("It crashed.", exit_code=-11, signal_name="SIGSEGV")
    for devices, offered in (((), False), ((Device("Vulkan0", "A card", "gpu", None, None),), True)):
        shown.desk.take(m.Started(4242, devices, "", has_rpc=True))
        shown.desk.load(tiny)
        shown.desk.take(Died(crashed, EngineState.GENERATING, 0, Path("engine.log")))
        buttons = [b for b in shown.card.findChildren(QPushButton) if "without the GPU" in b.text()]
        assert [not button.isHidden() for button in buttons] == [offered]


def test_no_more_than_a_minute_is_kept_for_the_card(shown: SimpleNamespace) -> None:
    sample = pictures.sample()
    for _ in range(LAST_MINUTE + 20):
        shown.memory.on_sample_taken(sample)
    assert len(shown.memory._recent) == LAST_MINUTE + 1


def test_the_context_in_use_is_shown_and_gone_with_the_model(shown: SimpleNamespace, tiny: ModelFile) -> None:
    shown.desk.load(tiny, cells_used=128)
    assert any("128" in text for text in shown.bar.face_texts)
    shown.desk.take(Died(EngineDied("It was killed."), EngineState.READY, 0, Path("engine.log")))
    assert not any("128" in text for text in shown.bar.face_texts)


def test_short_memory_is_a_warning_and_its_end_a_note(shown: SimpleNamespace) -> None:
    shown.memory.on_room_changed(RoomChanged("RAM", "red", worse=True, room_bytes=-5))
    shown.memory.on_room_changed(RoomChanged("RAM", "", worse=False, room_bytes=5 * 2**30))
    assert [kind for _, kind in shown.desk.said] == ["warning", "note"]
