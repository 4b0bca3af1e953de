"""The whole app as a person meets it: real window, engine process, files; models small enough for any machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from kvdesk.backend.engine.engine_event import EngineState
from kvdesk.backend.gguf.model_file import read_model_file
from kvdesk.backend.protocol import messages as m
from kvdesk.backend.sampling import SamplingSettings
from kvdesk.backend.session.state import Choice
from kvdesk.backend.session_log import reader
from kvdesk.backend.settings import ContextSettings
from kvdesk.ui.settings.field_editor import NOTE_ROLE
from tests.end2end.conftest import StartApp
from tests.tiny_models import replace_alike, write_tiny

ENDLESS = SamplingSettings(temperature=0.0, max_tokens=0)
WIDE = ContextSettings(n_ctx=4096, n_threads=1, allocation="reserve")
WANTED = ("start", "load", "ready", "grow", "predicted")
BIG = {"n_layer": 8, "n_embd": 1024, "n_ff": 2048}
"""Sizes of a model that is slow enough to be interrupted."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("llama", tmp_path_factory.mktemp("models"), **BIG, file_name="slow.gguf")


# --- chatting -------------------------------------------------------------------------------------------------------


@pytest.mark.starter
def test_starter_answers_on_screen(start_app: StartApp, starter: Path) -> None:
    person = start_app(starter)
    assert "Paris" in person.ask("What is the capital of France?")
    figures = person.footers[-1].stats_label.full_text
    assert "tokens" in figures
    assert "tok/s" in figures
    assert "first token" in figures
    assert person.field.toPlainText() == ""
    assert person.titles == ["What is the capital of France?"]
    card = person.window.memory_dock.live_chart.cards["RAM"]
    person.wait_until(lambda: (person.app.monitor.held()["RAM"] or 0) > 200 * 2**20)
    assert "under the line" in card.words


def test_reply_is_stopped_with_escape_and_its_text_kept(start_app: StartApp, slow: Path) -> None:
    person = start_app(slow, context=WIDE, sampling=ENDLESS)
    person.send("tell me all")
    person.wait_for_text()
    person.stop()
    text = person.wait_for_reply()
    assert text
    assert "stopped" in person.footers[-1].stats_label.full_text.lower()
    assert person.window.composer.stop_action.isEnabled() is False


def test_regenerating_keeps_the_old_version(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny, sampling=SamplingSettings(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=24))
    first = person.ask("say something new")
    person.footers[-1].regenerate_button.click()
    assert person.app.chat.is_replying
    second = person.wait_for_reply()
    assert second != first
    switcher = person.footers[-1].versions
    assert switcher
    assert switcher.label.text() == "2/2"
    switcher.previous_button.click()
    assert person.messages == ["say something new", first]
    person.footers[-1].versions.next_button.click()
    assert person.messages == ["say something new", second]


def test_editing_makes_a_branch(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    first = person.ask("one word")
    question = person.window.transcript.message_ids[0]
    person.window.transcript.message_edited.emit(question, "another word")
    second = person.wait_for_reply()
    assert person.messages == ["another word", second]
    person.footers[0].versions.previous_button.click()
    assert person.messages == ["one word", first]


def test_an_edit_while_a_reply_runs_ends_it_and_loses_nothing(start_app: StartApp, slow: Path) -> None:
    person = start_app(slow, context=WIDE, sampling=SamplingSettings(temperature=0.0, max_tokens=200))
    person.send("tell me all")
    person.wait_for_text()
    question = person.window.transcript.message_ids[0]
    person.window.transcript.message_edited.emit(question, "tell me less")
    person.wait_until(lambda: person.messages[0] == "tell me less" and len(person.messages) == 2)
    second = person.wait_for_reply()
    assert person.messages == ["tell me less", second]
    person.footers[0].versions.previous_button.click()
    assert person.messages[0] == "tell me all"
    assert person.messages[1]


def test_another_model_is_opened_at_once_also_while_a_reply_runs(start_app: StartApp, slow: Path, tiny: Path) -> None:
    person = start_app(slow, context=WIDE, sampling=ENDLESS)
    person.send("tell me all")
    person.wait_for_text()
    person.app.models.open(tiny)
    person.wait_until(
        lambda: person.app.session.state.file and person.app.session.state.file.path == tiny and person.can_send
    )
    assert "stopped" in person.footers[-1].stats_label.full_text
    assert person.messages[1]
    person.app.session.eject()
    person.wait_until(lambda: not person.can_send)
    person.send("nobody answers")
    assert person.field.toPlainText() == "nobody answers"
    person.app.models.open(slow.with_name("missing.gguf"))
    person.app.models.open(slow)
    person.wait_until_ready()


def test_an_edit_does_not_keep_a_model_from_being_opened(start_app: StartApp, tiny: Path, slow: Path) -> None:
    person = start_app(tiny)
    person.app.session.ask_load(Choice(read_model_file(slow), person.app.session.state.settings))
    person.window.settings_panel.edit_n_ctx(1024)
    person.wait_until(lambda: person.app.session.state.file.path == slow and person.can_send)


def test_models_with_and_without_a_window_can_follow_each_other(
    start_app: StartApp, tiny: Path, tmp_path: Path
) -> None:
    windowed = write_tiny("gemma3", tmp_path)
    person = start_app(windowed)
    table = person.window.memory_dock._table
    for path in (tiny, windowed, tiny):
        person.ask("hello")
        person.wait_until(lambda: table._loaded_of_model)
        person.app.models.open(path)
        person.wait_until(lambda path=path: person.app.session.state.in_force.file.path == path and person.can_send)


def test_of_two_models_opened_the_last_stays(start_app: StartApp, tiny: Path, slow: Path) -> None:
    person = start_app(tiny)
    loaded: list[str] = []  # a tiny model is there again before anybody looks
    person.app.session.add_listener(
        lambda change: loaded.append(change.event.model.path) if isinstance(change.event, m.Loaded) else None
    )
    person.app.models.open(slow)
    person.app.models.open(tiny)
    person.app.models._on_header_read(slow, read_model_file(slow))  # its disk was slow
    person.wait_until(lambda: loaded)
    person.wait_until_ready()
    assert loaded == [str(tiny)]
    assert person.app.session.state.file.path == tiny


def test_a_load_that_fails_leaves_the_model_usable(start_app: StartApp, tiny: Path, tmp_path: Path) -> None:
    person = start_app(tiny)
    gone = read_model_file(Path(shutil.copy(tiny, tmp_path / "gone.gguf")))
    gone.path.unlink()
    person.app.session.load(Choice(gone, person.app.session.state.settings))
    assert not person.can_send
    person.wait_until(lambda: person.said("gone.gguf"))
    assert person.app.session.state.file.path == tiny
    assert person.ask("still there?")


def test_a_file_that_is_cut_is_said_to_be_so_without_a_price(start_app: StartApp, tiny: Path, tmp_path: Path) -> None:
    person = start_app(tiny)
    cut = tmp_path / "cut.gguf.part1of2"
    cut.write_bytes(tiny.read_bytes()[:-100_000])
    person.app.models.open(cut)
    person.wait_until(lambda: person.said("100 kB are missing"))
    assert person.said("Join all pieces in their order")
    assert person.app.session.state.asked is None
    assert person.app.session.state.file.path == tiny
    assert person.can_send


def test_what_is_typed_is_there_after_a_restart(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    person.type("not said yet")
    person.window.conversation_list.new_action.trigger()
    assert person.field.toPlainText() == ""
    person.window.conversation_list.new_action.trigger()
    person.ask("said")
    person.type("half a thou")
    person.app.close()

    again = start_app(tiny)
    again.wait_until(lambda: again.field.toPlainText() == "half a thou" and len(again.drafts) == 2)
    assert again.titles == ["said", ""]
    again.choose_conversation("")
    assert again.field.toPlainText() == "not said yet"
    again.wait_until_ready()
    QTest.keyClick(again.field, Qt.Key.Key_Return)
    again.wait_for_reply()
    again.wait_until(lambda: again.titles == ["not said yet", "said"] and again.drafts == ["", "half a thou"])


def test_what_is_typed_survives_a_kill(start_app: StartApp, tiny: Path, home: Path) -> None:
    person = start_app(tiny)
    person.type("about to be kil")
    with contextlib.closing(sqlite3.connect(home / "data" / "conversations.sqlite3")) as database:
        kept = "SELECT draft FROM conversations"
        person.wait_until(lambda: database.execute(kept).fetchall() == [("about to be kil",)])


def test_a_suggestion_leaves_what_is_typed(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    person.type("mine")
    person.window.transcript.starter_chosen.emit("theirs")
    person.wait_for_reply()
    assert person.messages[0] == "theirs"
    assert person.field.toPlainText() == "mine"


def test_a_model_is_remembered_with_its_sampling(start_app: StartApp, tiny: Path, slow: Path) -> None:
    person = start_app(tiny)
    person.window.sampling_panel.changed.emit(SamplingSettings(temperature=0.25))
    person.window.conversation_list.new_action.trigger()
    assert person.app.opened.conversation.sampling.temperature == 0.25
    person.app.close()

    again = start_app(tiny)
    assert again.window.sampling_panel.sampling().temperature == 0.25
    assert again.titles == []
    again.app.models.open(slow)
    again.wait_until(lambda: again.window.sampling_panel.sampling().temperature != 0.25)
    assert again.app.opened.conversation.sampling.temperature == again.app.preferences.sampling.temperature


def test_conversations_are_there_after_a_restart(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    first = person.ask("first talk")
    person.window.conversation_list.new_action.trigger()
    second = person.ask("second talk")
    person.wait_until(lambda: person.titles == ["second talk", "first talk"])
    person.choose_conversation("first talk")
    assert person.messages == ["first talk", first]
    person.app.close()

    again = start_app(tiny)
    again.wait_until(lambda: again.messages == ["first talk", first])  # the one that was open
    assert again.titles == ["second talk", "first talk"]
    again.choose_conversation("second talk")
    assert again.messages == ["second talk", second]
    assert again.ask("go on")


def test_closing_while_a_reply_is_written_keeps_its_text(start_app: StartApp, slow: Path) -> None:
    person = start_app(slow, context=WIDE, sampling=ENDLESS)
    person.send("tell me all")
    person.wait_for_text()
    written = person.messages[-1]
    person.window.close()
    assert person.app.engine.state is EngineState.STOPPED

    again = start_app()
    again.wait_until(lambda: again.messages)
    assert again.messages[-1].startswith(written)
    assert "closed" in again.footers[-1].stats_label.full_text


# --- settings -------------------------------------------------------------------------------------------------------


def test_cache_types_change_under_a_conversation(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    before = person.ask("count to ten")
    panel = person.window.settings_panel
    pid = person.app.engine.pid
    for field in ("type_k", "type_v"):
        box = person.editor(field)
        box.set_value("q8_0")
        box.activated.emit(box.currentIndex())
    person.wait_until(lambda: "(-" in panel.price)  # priced before it is applied
    person.click(panel, "Apply")
    said = person.wait_for_notice("Context recreated", "without reloading the weights")
    assert "nothing was read again" in said
    assert person.app.engine.pid == pid
    assert "K q8_0 V q8_0" in person.window.model_bar.face_texts
    assert person.messages == ["count to ten", before]
    assert person.ask("and on")


def test_impossible_pair_is_closed_and_says_why(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    attention = person.editor("flash_attn")
    attention.set_value("off")
    attention.activated.emit(attention.currentIndex())
    box = person.editor("type_v")
    item = box.model().item(box.findData("q8_0"))
    assert not item.isEnabled()
    assert item.toolTip() == "V quantization needs Flash Attention"


def test_a_cache_types_price_in_the_list_is_the_price_of_choosing_it(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny, context=ContextSettings(n_ctx=4096, n_threads=1))
    box = person.editor("type_k")
    at = box.findData("q8_0")
    person.wait_until(lambda: box.itemData(at, NOTE_ROLE))
    listed = box.itemData(at, NOTE_ROLE)
    assert listed.startswith("-")
    assert not box.itemData(box.findData("f16"), NOTE_ROLE)
    box.set_value("q8_0")
    box.activated.emit(at)
    person.wait_until(lambda: f"({listed})" in person.window.settings_panel.price)
    person.wait_until(lambda: not box.itemData(at, NOTE_ROLE))
    assert box.itemData(box.findData("f16"), NOTE_ROLE) == "+" + listed[1:]


def test_context_grows_with_a_long_reply(start_app: StartApp, tiny: Path, home: Path) -> None:
    context = ContextSettings(n_ctx=2048, n_threads=1, initial_ctx=256)
    person = start_app(tiny, context=context, sampling=SamplingSettings(temperature=0.0, max_tokens=700))
    assert person.app.session.state.context.n_ctx == 256
    person.ask("a long story")
    assert person.app.session.state.context.n_ctx == 1024
    assert person.app.session.state.context.kv.cells_used > 700
    person.wait_until(lambda: person.app.session.state.comparison)
    assert any(fact.endswith("/ 2k tokens") for fact in person.window.model_bar.face_texts)
    person.app.close()

    session = reader.open_session(reader.list_sessions(home / "data" / "sessions")[0].path)
    kinds = [event.kind for event in session.events]
    assert [kind for kind in kinds if kind in WANTED] == ["start", "load", "ready", "grow", "grow", "predicted"]
    assert session.exit


def test_prompt_longer_than_the_context_is_said_and_not_lost(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny, context=ContextSettings(n_ctx=256, n_threads=1))
    long = "word " * 400
    person.field.setPlainText(long)
    person.field.submitted.emit()
    person.wait_until(lambda: not person.app.chat.is_replying and person.said("256"))
    assert long in person.field.toPlainText() or long in person.messages
    assert person.app.engine.state is EngineState.READY


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _bad_files(folder: Path, tiny: Path) -> dict[str, tuple[Path, str]]:
    """Name -> a file that cannot be chatted with, and a word that must be in what is said about it."""
    whole = tiny.read_bytes()
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "text.gguf").write_text("this is a letter to my aunt, not a model\n" * 50)
    (folder / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "cut-header.gguf").write_bytes(whole[:2000])
    (folder / "magic.gguf").write_bytes(b"GGML" + whole[4:])
    write_tiny("llama", folder, vocab=False, file_name="no-vocabulary.gguf")
    write_tiny("bert", folder, file_name="bert.gguf")
    (folder / "folder.gguf").mkdir()
    names = ("missing", "folder", "empty", "text", "truncated", "cut-header", "magic", "no-vocabulary", "bert")
    return {name: folder / f"{name}.gguf" for name in names}


def test_bad_files_get_a_sentence_and_the_model_stays(start_app: StartApp, tiny: Path, tmp_path: Path) -> None:
    person = start_app(tiny)
    name = person.model_name
    for kind, path in _bad_files(tmp_path, tiny).items():
        person.forget_notices()
        person.app.models.open(path)
        person.wait_until(lambda: person.notices)
        person.wait_until(lambda: person.app.engine.state is EngineState.READY)
        said = person.notices
        assert len(said) == 1, (kind, said)
        assert "\n" not in said[0], (kind, said)
        assert len(said[0]) < 300, (kind, said)
        assert person.model_name == name, kind
        assert person.ask(f"still there after {kind}"), kind


@pytest.mark.logs("The engine was killed from outside")
def test_killed_engine_leaves_the_chat_and_comes_back(start_app: StartApp, slow: Path) -> None:
    person = start_app(slow, context=WIDE, sampling=ENDLESS)
    person.send("tell me all")
    person.wait_for_text()
    card = person.window.crash_card
    os.kill(person.app.engine.pid, signal.SIGKILL)
    person.wait_until(card.isVisible)
    assert "killed" in card.sentence
    assert "SIGKILL" in card.sentence
    written = person.messages[-1]
    assert written
    assert not person.app.chat.is_replying
    person.click(card, "Reload")
    person.wait_until_ready()
    assert not card.isVisible()
    assert person.messages[-1] == written
    person.send("go on")
    person.wait_for_text()
    person.stop()
    assert person.wait_for_reply()


def test_replies_to_come_are_said_of_the_conversation_that_is_open(start_app: StartApp, tiny: Path) -> None:
    person = start_app(tiny)
    person.wait_until(lambda: "RAM" in person.window.memory_dock.live_chart.cards)
    card = person.window.memory_dock.live_chart.cards["RAM"]
    person.ask("hello")
    person.wait_until(lambda: "replies" in card.words)
    person.app.chat.new()
    assert "replies" not in card.words
    person.ask("hello again")
    person.wait_until(lambda: "replies" in card.words)


def test_a_replaced_file_is_reloaded_by_its_own_header(start_app: StartApp, tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    person = start_app(path)
    replace_alike(path, b"Tiny llama", b"Tiny koala")
    person.app.models.reload()
    person.wait_until(lambda: person.app.session.state.in_force.file.name == "Tiny koala" and person.can_send)
