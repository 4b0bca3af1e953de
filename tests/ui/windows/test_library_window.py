"""The library's pages with real values: rows that fill in, sorting, filtering, badges, downloads, texts of strangers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QMessageBox

from kvdesk.backend.library.first_models import FirstModel
from kvdesk.backend.library.hub.download_state import (
    CHECKING,
    DONE,
    FAILED,
    LOADING,
    PAUSED,
    QUEUED,
    WAITING,
    DownloadState,
)
from kvdesk.backend.library.hub.repository import RemoteFile, Repository
from kvdesk.backend.library.models import ModelListEntry
from kvdesk.backend.planning.fit import DOES_NOT_FIT, FITS, FITS_UP_TO, RUNS_SLOWLY, DomainFit, Fit
from kvdesk.sizes import GIB
from kvdesk.ui.widgets.theme import LIGHT
from kvdesk.ui.windows.library_window import LibraryWindow
from kvdesk.ui.windows.model_table import PATH_ROLE


def entry(name: str, **facts: object) -> ModelListEntry:
    values = ModelListEntry(
        f"/m/{name}.gguf", name, 4_900_000_000, "llama", "Q4_K_M", 32, 131_072, 8_000_000_000, 8_000_000_000,
        attention=("GQA",), is_complete=True, has_chat_template=True, fingerprint=name, source="kvdesk",
    )  # fmt: skip
    return replace(values, **facts)  # type: ignore[arg-type]


@pytest.fixture
def window(qtbot):
    widget = LibraryWindow(LIGHT)
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitExposed(widget)
    return widget


def shown(page) -> list[str]:
    model = page.view.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def cell(page, row: int, title: str) -> str:
    model = page.view.model()
    titles = [model.headerData(n, Qt.Orientation.Horizontal) for n in range(model.columnCount())]
    return model.index(row, titles.index(title)).data()


# --- first steps -------------------------------------------------------------------------------------------------------


def first_model(name: str = "Small 1B", size_bytes: int = 1_100_000_000) -> FirstModel:
    return FirstModel(
        name, "o/r", "x", "m-Q4_K_M.gguf", size_bytes, "0" * 64, "Q4_K_M", "MIT", 28_672, 151_936, "Quick."
    )


def test_a_newcomer_sees_what_each_offer_takes_and_is_good_at(window, qtbot):
    page = window.first
    page.show_models([first_model(), first_model("Large", 60 * GIB)], 8 * GIB, has_starter=False)
    texts = [label.text() for label in page.findChildren(QLabel)]
    assert "Small 1B" in texts
    assert "Quick." in texts
    assert "1.1 GB  ·  Q4_K_M  ·  licence MIT" in texts
    assert any("takes about 1.7 GiB with 8k tokens: fits, about 6.3 GiB under the line" in text for text in texts)
    assert any("about 52.7 GiB more than is free" in text for text in texts)
    assert not page.starter_button.isVisibleTo(page)
    with qtbot.waitSignal(page.chosen) as chosen:
        page.buttons["Small 1B"].click()
    assert chosen.args[0].name == "Small 1B"


def test_search_is_one_click_from_the_first_page(window):
    window.show_first()
    assert window.pages.currentWidget() is window.first
    window.first.search_button.click()
    assert window.pages.currentWidget() is window.hub


def test_offers_are_replaced_and_not_heaped_up(window):
    window.first.show_models([first_model()], None, has_starter=True)
    window.first.show_models([first_model("Another")], None, has_starter=True)
    assert list(window.first.buttons) == ["Another"]
    assert window.first.starter_button.isVisibleTo(window.first)


# --- this computer -----------------------------------------------------------------------------------------------------


def test_rows_fill_in_and_are_sorted(window):
    page = window.local
    page.add([entry("Beta"), entry("alpha", n_params_active=1_000_000_000)], is_first=True)
    page.add([entry("gamma")], is_first=False)
    page.show_count(3)
    assert shown(page) == ["alpha", "Beta", "gamma"]
    assert cell(page, 0, "Size") == "4.9 GB"
    assert cell(page, 0, "Parameters") == "8.0B (1.0B)"
    assert cell(page, 0, "Context") == "128k"
    assert cell(page, 0, "Fits") == "asking llama.cpp…"
    assert "3 models" in page.words.text()


def test_badges_come_later_and_sort_by_what_they_mean(window):
    page = window.local
    page.add([entry(name) for name in "abce"], is_first=True)
    page.add([entry("d", error="d is an embedding model.")], is_first=False)
    page.show_fit("/m/e.gguf", Fit(RUNS_SLOWLY, "Runs slowly"))
    page.show_fit("/m/a.gguf", Fit(DOES_NOT_FIT, "Does not fit by 1.2 GiB"))
    page.show_fit("/m/b.gguf", Fit(FITS_UP_TO, "Fits up to 8k tokens", max_n_ctx=8192))
    page.show_fit("/m/c.gguf", Fit(FITS, "Fits with all of its 128k tokens", max_n_ctx=131_072))
    page.show_fit("/m/gone.gguf", Fit(FITS, ""))
    page.view.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    assert shown(page) == ["c", "b", "e", "a", "d"]
    assert cell(page, 4, "Fits") == "Cannot chat"


def test_every_word_of_the_filter_must_be_found(window):
    page = window.local
    page.add([entry("a", architecture="gemma3"), entry("b", source="Ollama"), entry("c")], is_first=True)
    page.filter_field.setText("ollama Q4")
    assert shown(page) == ["b"]
    page.filter_field.setText("gemma q4_k_m /m/")
    assert shown(page) == ["a"]
    page.filter_field.setText("nothing")
    assert shown(page) == []
    page.filter_field.clear()
    assert len(shown(page)) == 3


def test_copies_are_marked(window):
    page = window.local
    page.add(
        [entry("a", fingerprint="same"), entry("b", fingerprint="same"), entry("c", fingerprint="")], is_first=True
    )
    page.add([entry("d", fingerprint="")], is_first=False)
    assert shown(page) == ["a", "b (copy)", "c", "d"]


def test_a_rescan_keeps_choice_and_badges(window):
    page = window.local
    page.add([entry("a"), entry("b")], is_first=True)
    page.show_fit("/m/b.gguf", Fit(FITS, "Fits"))
    page.choose("/m/b.gguf")
    page.add([entry("b"), entry("c")], is_first=True)
    assert page.path == "/m/b.gguf"
    assert cell(page, 0, "Fits") == "Fits"


def test_what_can_be_done_depends_on_whose_it_is(window, qtbot):
    page = window.local
    page.add([entry("a"), entry("b", source="Ollama"), entry("c", error="c is damaged.")], is_first=True)
    page.choose("/m/a.gguf")
    assert (page.open_button.isEnabled(), page.delete_button.isEnabled()) == (True, True)
    with qtbot.waitSignal(page.open_requested) as asked:
        page.open_button.click()
    assert asked.args == ["/m/a.gguf"]
    page.choose("/m/b.gguf")
    assert (page.open_button.isEnabled(), page.delete_button.isEnabled()) == (True, False)
    page.choose("/m/c.gguf")
    assert not page.open_button.isEnabled()
    assert "c is damaged." in page.facts.text()


@pytest.mark.parametrize("is_sure", [True, False])
def test_deleting_is_confirmed(window, qtbot, is_sure):
    page = window.local
    page.add([entry("a")], is_first=True)
    page.choose("/m/a.gguf")
    asked: list[str] = []
    page.delete_requested.connect(asked.append)
    page.delete_button.click()
    box = page.findChild(QMessageBox)
    assert box.textFormat() == Qt.TextFormat.PlainText
    box.button(QMessageBox.StandardButton.Yes if is_sure else QMessageBox.StandardButton.No).click()
    assert asked == (["/m/a.gguf"] if is_sure else [])


def test_the_facts_price_each_device(window):
    page = window.local
    page.add([entry("a", license="mit", projector="/m/mmproj.gguf")], is_first=True)
    page.choose("/m/a.gguf")
    page.show_fit("/m/a.gguf", Fit(FITS, "Fits", 8192, domains=(DomainFit("RAM", 6 * GIB, 22 * GIB, 20 * GIB),)))
    text = page.facts.text()
    assert "RAM: 6.0 GiB for 8,192 tokens, 22.0 GiB for all, under a line of 20.0 GiB" in text
    assert "licence mit" in text
    assert "reads images" in text


# --- the hub -----------------------------------------------------------------------------------------------------------


def repository(*names: str, **facts: object) -> Repository:
    files = tuple(RemoteFile("o/r", "x", name, 1_000_000_000 * (n + 1), "0" * 64) for n, name in enumerate(names))
    return Repository("o/r", files=files, **facts)  # type: ignore[arg-type]


def test_a_search_is_made_by_return_and_shows_what_is_found(window, qtbot):
    page = window.hub
    assert "Nothing is asked" in page.words.text()
    page.field.setText(" gemma ")
    with qtbot.waitSignal(page.search_requested) as asked:
        qtbot.keyClick(page.field, Qt.Key.Key_Return)
    assert asked.args == ["gemma", "downloads"]
    page.show_found([Repository("o/r", downloads=1234, updated="2026-10-01", is_gated=True)])
    item = page.repositories.topLevelItem(0)
    assert [item.text(column) for column in range(3)] == ["o/r (gated)", "1,234", "2026-10-01"]
    with qtbot.waitSignal(page.repository_chosen) as chosen:
        page.repositories.setCurrentItem(item)
    assert chosen.args == ["o/r"]
    page.show_found([])
    assert "no GGUF repository" in page.words.text()


def test_badges_and_the_best_are_shown_and_can_be_downloaded(window, qtbot):
    page = window.hub
    page.show_repository(repository("m-Q4_0.gguf", "m-Q8_0.gguf", license="mit"), "")
    assert not page.download_button.isEnabled()
    page.show_fit("o/r", "m-Q8_0", Fit(FITS_UP_TO, "Fits up to 41k tokens", max_n_ctx=41_984))
    page.show_fit("o/another", "m-Q4_0", Fit(FITS, "not of this one"))
    page.show_best("o/r", "m-Q8_0", "The best for this machine: …")
    row = page.models.topLevelItem(1)
    assert [row.text(column) for column in range(4)] == ["Q8_0", "2.0 GB", "★ Fits up to 41k tokens", "m-Q8_0"]
    assert page.models.topLevelItem(0).text(2) == "reading its header…"
    assert page.words.text() == "★ The best for this machine: …"
    with qtbot.waitSignal(page.download_requested) as asked:
        page.download_button.click()
    assert asked.args[0].name == "m-Q8_0"


def test_the_model_of_a_link_is_chosen(window):
    page = window.hub
    page.show_repository(repository("m-Q4_0.gguf", "m-Q8_0.gguf"), "m-Q4_0")
    page.show_best("o/r", "m-Q8_0", "why")
    assert page.chosen is not None
    assert page.chosen.name == "m-Q4_0"


def test_none_that_fits_is_said(window):
    page = window.hub
    page.show_repository(repository("m-Q4_0.gguf"), "")
    page.show_best("o/r", "", "")
    assert "None of these is known to fit" in page.words.text()


def test_texts_of_strangers_are_never_markup(window):
    page = window.hub
    evil = "<b>bold</b><img src='file:///etc/passwd'>"
    page.show_repository(repository(f"{evil}-Q4_0.gguf", license=evil), "")
    page.show_problem(evil)
    window.local.add([entry(evil, license=evil)], is_first=True)
    window.local.choose(f"/m/{evil}.gguf")
    window.downloads.show_state(DownloadState("k", evil, "o/r", FAILED, 0, 1, error=evil))
    for label in window.findChildren(QLabel):
        if evil in label.text():
            assert label.textFormat() == Qt.TextFormat.PlainText


# --- downloads -----------------------------------------------------------------------------------------------------------


def test_a_download_is_shown_in_bytes_speed_and_time(window):
    rows = window.downloads
    assert not rows.isVisible()
    state = DownloadState("k", "m-Q8_0", "o/r", LOADING, 1_200_000_000, 4_900_000_000, 12_000_000.0)
    rows.show_state(state)
    row = rows.rows["k"]
    assert rows.isVisible()
    assert row.words.text() == "1.2 GB / 4.9 GB  ·  12 MB/s  ·  5 min 08 s left"
    assert row.bar.value() == 244


@pytest.mark.parametrize(
    ("stage", "words", "button"),
    [
        (QUEUED, "waits for its turn", "Pause"),
        (WAITING, "another kvdesk downloads it", "Pause"),
        (CHECKING, "checking that it is whole", "Pause"),
        (PAUSED, "paused at 1 B / 2 B", "Resume"),
        (FAILED, "The disk is too full.", "Try again"),
        (DONE, "done, 2 B", "Open"),
    ],
)
def test_every_stage_has_words_and_an_action(window, qtbot, stage, words, button):
    rows = window.downloads
    rows.show_state(DownloadState("k", "m", "o/r", stage, 1, 2, error="The disk is too full.", path="/m/m.gguf"))
    row = rows.rows["k"]
    assert (row.words.text(), row.action.text()) == (words, button)
    signals = {"Pause": rows.pause_requested, "Open": rows.open_requested}
    with qtbot.waitSignal(signals.get(button, rows.resume_requested)) as asked:
        row.action.click()
    assert asked.args == ["/m/m.gguf" if stage == DONE else "k"]


def test_a_discarded_download_leaves_no_row(window, qtbot):
    rows = window.downloads
    rows.show_state(DownloadState("k", "m", "o/r", PAUSED, 1, 2))
    with qtbot.waitSignal(rows.discard_requested) as asked:
        rows.rows["k"].discard.click()
    assert asked.args == ["k"]
    assert rows.rows == {}
    assert not rows.isVisible()


def test_the_path_of_a_row_is_told_whatever_the_order(window):
    page = window.local
    page.add([entry("b"), entry("a")], is_first=True)
    assert page.view.model().index(0, 3).data(PATH_ROLE) == "/m/a.gguf"
