"""A strip above the composer: one sentence and up to four priced ways out. UI thread; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from kvdesk.ui.panels.options_card import PricedChoice
from kvdesk.ui.widgets.flow_layout import FlowLayout
from kvdesk.ui.widgets.icons import icon
from kvdesk.ui.widgets.numbers import format_bytes, format_bytes_delta
from kvdesk.ui.widgets.plain_text import PlainLabel, plain_tip
from kvdesk.ui.widgets.theme import Theme, set_role

MOST_OPTIONS = 4
NARROWEST_BUTTON_PX = 120
GAP_PX = 8
LINE_PX = 22


class WarningStrip(QFrame):
    """Hidden until there is something to say."""

    option_chosen = Signal(PricedChoice)
    dismissed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._tone = "amber"
        self.buttons: dict[str, QPushButton] = {}
        """The buttons by key."""
        set_role(self, "card")
        self._sign = PlainLabel()
        self._sign.setFixedSize(16, LINE_PX)
        self._sentence = PlainLabel()
        self._sentence.setMinimumHeight(LINE_PX)
        self._sentence.setWordWrap(True)
        self._close = QToolButton()
        self._close.setFixedSize(LINE_PX, LINE_PX)
        self._close.setAccessibleName(self.tr("Dismiss"))
        self._close.setToolTip(self.tr("Dismiss"))
        self._close.clicked.connect(self.dismiss)
        top = QHBoxLayout()
        top.setSpacing(GAP_PX)
        top.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        top.addWidget(self._sentence, 1)
        top.addWidget(self._close, 0, Qt.AlignmentFlag.AlignTop)
        self._options = FlowLayout(GAP_PX)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.setSpacing(GAP_PX)
        layout.addLayout(top)
        layout.addLayout(self._options)
        self.set_theme(theme)
        self.hide()

    @property
    def sentence(self) -> str:
        """What it says, "" while it says nothing."""
        return "" if self.isHidden() else self._sentence.text()

    def show_warning(self, sentence: str, options: Sequence[PricedChoice] = (), tone: str = "amber") -> None:
        """Say ``sentence`` with the first four of ``options`` as buttons. ``tone``: "amber" or "red"."""
        self._tone = tone
        self._sentence.setText(sentence)
        self.setAccessibleName(sentence)
        set_role(self._sentence, tone)
        self._show_sign()
        for button in self.buttons.values():
            button.hide()
            button.deleteLater()
        self.buttons = {option.key: self._button_for(option) for option in options[:MOST_OPTIONS]}
        for button in self.buttons.values():
            self._options.addWidget(button)
        self.show()

    def dismiss(self) -> None:
        """Close it, as its button does."""
        self.hide()
        self.dismissed.emit()

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._theme = theme
        self._close.setIcon(icon("close", theme, theme.text_muted))
        self._show_sign()

    def _button_for(self, option: PricedChoice) -> QPushButton:
        price = self._price_words(option)
        button = _OptionButton(f"{option.label} ({price})" if price else option.label)
        set_role(button, "danger" if option.is_risky else "")
        button.clicked.connect(lambda: self.option_chosen.emit(option))
        return button

    def _price_words(self, option: PricedChoice) -> str:
        parts: list[str] = []
        if option.difference_bytes is not None:
            parts.append(format_bytes_delta(option.difference_bytes))
        elif option.total_bytes is not None:
            parts.append(format_bytes(option.total_bytes))
        if option.fits is not None:
            parts.append(self.tr("fits") if option.fits else self.tr("does not fit"))
        if option.note:
            parts.append(option.note)
        return ", ".join(parts)

    def _show_sign(self) -> None:
        color = self._theme.red if self._tone == "red" else self._theme.amber
        self._sign.setPixmap(icon("warning", self._theme, color).pixmap(QSize(16, 16), self.devicePixelRatioF()))


class _OptionButton(QPushButton):
    """Its text is cut with an ellipsis where it does not fit; all of it is in the tool tip."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.full_text = text
        self.setToolTip(plain_tip(text))
        self.setAccessibleName(text)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        metrics = self.fontMetrics()
        missing = metrics.horizontalAdvance(self.full_text) - metrics.horizontalAdvance(self.text())
        return QSize(hint.width() + missing, hint.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(NARROWEST_BUTTON_PX, self.sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        missing = self.sizeHint().width() - self.width()
        room = self.fontMetrics().horizontalAdvance(self.full_text) - missing
        elided = self.fontMetrics().elidedText(self.full_text, Qt.TextElideMode.ElideRight, room)
        self.setText(elided if missing > 0 else self.full_text)
