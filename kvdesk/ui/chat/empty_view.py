"""What the transcript shows before the first message: what kvdesk is, questions to start with. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from kvdesk.ui.widgets.icons import app_icon
from kvdesk.ui.widgets.plain_text import PlainLabel

WIDTH = 460


class EmptyView(QWidget):
    """Emits ``starter_chosen`` with the question when one is clicked."""

    starter_chosen = Signal(str)
    models_requested = Signal()
    """Another model is wanted."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        picture = PlainLabel()
        picture.setPixmap(app_icon().pixmap(QSize(56, 56), self.devicePixelRatioF()))
        title = PlainLabel(self.tr("Chat with a model on this computer"))
        title.setObjectName("empty_title")
        title.setWordWrap(True)
        about = PlainLabel(
            self.tr(
                "kvdesk runs GGUF models with llama.cpp and shows beside the chat where the memory goes: "
                "what it will take before you load, and what it takes while you talk."
            )
        )
        about.setWordWrap(True)
        about.setProperty("role", "muted")
        hint = PlainLabel(self.tr("Drop a .gguf file on this window to open another model."))
        hint.setWordWrap(True)
        hint.setProperty("role", "muted")
        self.starter_buttons = [
            self._starter_button(question)
            for question in (
                self.tr("What is a KV cache?"),
                self.tr("Write a Python function that finds duplicate files."),
                self.tr("Tell me three facts about Paris."),
            )
        ]
        self.models_button = QPushButton(self.tr("Choose a better model…"))
        self.models_button.setProperty("role", "flat")
        self.models_button.clicked.connect(self.models_requested)
        inner = QWidget()
        inner.setMaximumWidth(WIDTH)
        lines = QVBoxLayout(inner)
        lines.setSpacing(8)
        lines.addWidget(picture)
        lines.addWidget(title)
        lines.addWidget(about)
        lines.addSpacing(8)
        for button in self.starter_buttons:
            lines.addWidget(button)
        lines.addSpacing(8)
        lines.addWidget(self.models_button)
        lines.addWidget(hint)
        for label in (picture, title, about, hint):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(inner, 100)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.addStretch(1)
        column.addLayout(row)
        column.addStretch(1)

    def _starter_button(self, question: str) -> QPushButton:
        button = QPushButton(question)
        button.setObjectName("starter")
        button.clicked.connect(lambda: self.starter_chosen.emit(question))
        return button
