"""The page for the first minute: a few good small models, or a file of one's own. UI thread; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.backend.library.first_models import N_CTX, FirstModel
from kvdesk.ui.widgets.numbers import format_bytes, format_file_size, short_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import set_role

CARD_WIDTH_PX = 300


class FirstPage(QWidget):
    """Emits which model is wanted."""

    chosen = Signal(FirstModel)
    """A FirstModel, to be downloaded and opened."""
    starter_requested = Signal()
    search_requested = Signal()
    file_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        title = PlainLabel(self.tr("Which model shall answer you?"))
        title.setObjectName("empty_title")
        self.words = self._label(
            self.tr("Nothing is downloaded before you choose. It stays on this computer."), "muted"
        )
        self.buttons: dict[str, QPushButton] = {}
        self._cards = QHBoxLayout()
        self._cards.setSpacing(12)
        self.starter_button = self._button(self.tr("Use the small one that is here"), self.starter_requested)
        self.search_button = self._button(self.tr("Search for more…"), self.search_requested)
        self.file_button = self._button(self.tr("I have a file…"), self.file_requested)
        others = QHBoxLayout()
        for button in (self.starter_button, self.search_button, self.file_button):
            others.addWidget(button)
        others.addStretch(1)
        column = QVBoxLayout(self)
        column.addWidget(title)
        column.addWidget(self.words)
        column.addSpacing(12)
        column.addLayout(self._cards)
        column.addSpacing(12)
        column.addLayout(others)
        column.addStretch(1)

    def show_models(self, models: Sequence[FirstModel], line_bytes: int | None, has_starter: bool) -> None:
        """The offers for this machine, whose OOM line is at ``line_bytes``."""
        while (item := self._cards.takeAt(0)) is not None:
            if widget := item.widget():
                widget.deleteLater()
        self.buttons.clear()
        for model in models:
            self._cards.addWidget(self._card(model, line_bytes), 1)
        self._cards.addStretch(1)
        self.starter_button.setVisible(has_starter)

    def show_words(self, text: str) -> None:
        """What became of a choice."""
        self.words.setText(text)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _card(self, model: FirstModel, line_bytes: int | None) -> QFrame:
        card = QFrame()
        set_role(card, "card")
        card.setMaximumWidth(CARD_WIDTH_PX)
        button = QPushButton(self.tr("Download and chat"))
        button.setAutoDefault(False)
        button.setAccessibleName(self.tr("Download {0} and chat").format(model.name))
        set_role(button, "primary")
        button.clicked.connect(lambda: self.chosen.emit(model))
        self.buttons[model.name] = button
        column = QVBoxLayout(card)
        column.addWidget(self._label(model.name, "heading"))
        column.addWidget(self._label(model.why, ""))
        column.addWidget(self._label(self._need_words(model, line_bytes), "muted"))
        facts = (format_file_size(model.size_bytes), model.quantization, self.tr("licence {0}").format(model.license))
        column.addWidget(self._label("  ·  ".join(facts), "muted"))
        column.addStretch(1)
        column.addWidget(button)
        return card

    def _need_words(self, model: FirstModel, line_bytes: int | None) -> str:
        need = self.tr("takes about {0} with {1} tokens").format(format_bytes(model.about_bytes), short_tokens(N_CTX))
        if line_bytes is None:
            return need
        room = line_bytes - model.about_bytes
        if room < 0:
            return self.tr("{0}: about {1} more than is free").format(need, format_bytes(-room))
        return self.tr("{0}: fits, about {1} under the line").format(need, format_bytes(room))

    def _label(self, text: str, role: str) -> PlainLabel:
        label = PlainLabel(text)
        label.setWordWrap(True)
        if role:
            set_role(label, role)
        return label

    def _button(self, text: str, signal: object) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(signal)
        return button
