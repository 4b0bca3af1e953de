"""The Context Length row: a number, and a slider over powers of two with labelled ticks, up to the model's own. UI thread."""

from __future__ import annotations

from bisect import bisect_left

from PySide6.QtCore import QSignalBlocker, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QSlider, QSpinBox, QStyle, QStyleOptionSlider, QWidget

from kvdesk.backend.settings import pad256
from kvdesk.ui.widgets.numbers import format_tokens, short_tokens
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.theme import Theme, set_role, smaller
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

STEP = 256
STEPS_PER_OCTAVE = 32
UNKNOWN_N_CTX_TRAIN = 131_072
"""How far the slider goes while no model says."""


def stops_up_to(n_ctx_train: int) -> tuple[int, ...]:
    """Slider positions: multiples of 256, at most 32 of them from one power of two to the next."""
    stops = [STEP]
    while stops[-1] < n_ctx_train:
        octave = 1 << (stops[-1].bit_length() - 1)
        stops.append(min(stops[-1] + max(STEP, octave // STEPS_PER_OCTAVE), n_ctx_train))
    return tuple(stops)


class ContextLength(QWidget):
    """``n_ctx``: 0 (the model's own) is shown as that number."""

    n_ctx_edited = Signal(int)
    """A new length, also while dragging."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._n_ctx_train: int | None = None
        self._most: int | None = None
        self._n_ctx = 0
        self._stops = stops_up_to(UNKNOWN_N_CTX_TRAIN)
        label = PlainLabel(self.tr("Context Length"))
        set_role(label, "heading")
        self._spin = QSpinBox()
        self._spin.setGroupSeparatorShown(True)
        self._spin.setSingleStep(STEP)
        self._spin.setKeyboardTracking(False)
        self._spin.setAccessibleName(self.tr("Context Length"))
        self._spin.setSuffix(self.tr(" tokens"))
        self._spin.lineEdit().setTextMargins(6, 0, 0, 0)  # a style sheet's padding does not reach the text
        self._spin.valueChanged.connect(self._on_spin_changed)
        label.setBuddy(self._spin)
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setAccessibleName(self.tr("Context Length"))
        self._slider.setPageStep(STEPS_PER_OCTAVE)
        self._slider.valueChanged.connect(self._on_slider_moved)
        self._scale = _Scale(self._slider, theme)
        leave_wheel_to_the_page(self._spin)
        leave_wheel_to_the_page(self._slider)
        self._explained = (label, self._spin, self._slider)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(2)
        layout.setColumnStretch(0, 1)
        layout.addWidget(label, 0, 0)
        layout.addWidget(self._spin, 0, 1)
        layout.addWidget(self._slider, 1, 0, 1, 2)
        layout.addWidget(self._scale, 2, 0, 1, 2)
        self.setFocusProxy(self._spin)
        self.show_model(None)

    def show_model(self, n_ctx_train: int | None, most: int | None = None) -> None:
        """The longest the model was trained for; None while no model is chosen. ``most`` tokens are all it can take."""
        self._n_ctx_train, self._most = n_ctx_train, most
        self._stops = stops_up_to(n_ctx_train or UNKNOWN_N_CTX_TRAIN)
        with QSignalBlocker(self._slider), QSignalBlocker(self._spin):
            self._slider.setRange(0, len(self._stops) - 1)
            self._spin.setRange(1, max(self._stops[-1], self._n_ctx))
        if n_ctx_train is None:
            own = self.tr("Choose a model to know its own.")
        elif most is not None:
            own = self.tr("The model knows {0} positions and no more: that is its longest context.").format(
                format_tokens(most)
            )
        else:
            own = self.tr("The model's own: {0} tokens").format(format_tokens(n_ctx_train))
        for widget in self._explained:
            widget.setToolTip(self.tr("Tokens the conversation may hold. {0}\n(n_ctx)").format(own))
        self.set_value(self._n_ctx)

    def value(self) -> int:
        """The length; 0 is still the model's own until it is edited."""
        return self._n_ctx

    def set_value(self, n_ctx: int) -> None:
        """Show ``n_ctx``; emits nothing."""
        self._n_ctx = n_ctx
        shown = n_ctx or self._stops[-1]
        if self._most is not None:
            shown = min(shown, self._most)
        with QSignalBlocker(self._slider), QSignalBlocker(self._spin):
            self._spin.setMaximum(max(self._stops[-1], shown))
            self._spin.setValue(shown)
            self._slider.setValue(min(bisect_left(self._stops, shown), len(self._stops) - 1))
        self._scale.show_stops(self._stops)

    def set_theme(self, theme: Theme) -> None:
        """Take the theme's colours."""
        self._scale.set_theme(theme)

    def _on_spin_changed(self, n_ctx: int) -> None:
        padded = pad256(n_ctx)  # llama.cpp would, and the number shown is the number made
        self.set_value(min(padded, self._n_ctx_train) if self._n_ctx_train else padded)
        self.n_ctx_edited.emit(self._n_ctx)

    def _on_slider_moved(self, position: int) -> None:
        self.set_value(self._stops[position])
        self.n_ctx_edited.emit(self._n_ctx)


class _Scale(QWidget):
    """Ticks and numbers below the slider, at powers of two and at the right end; as many as there is room for."""

    def __init__(self, slider: QSlider, theme: Theme) -> None:
        super().__init__()
        self._slider, self._theme = slider, theme
        self._stops: tuple[int, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_stops(self, stops: tuple[int, ...]) -> None:
        if stops != self._stops:
            self._stops = stops
            self.update()

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(100, QFontMetrics(smaller(self.font())).height() + 5)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        painter.setPen(QColor(self._theme.text_muted))
        painter.setFont(smaller(self.font()))
        metrics = painter.fontMetrics()
        taken: list[tuple[float, float]] = []
        marked = [i for i, n in enumerate(self._stops) if n & (n - 1) == 0 or i == len(self._stops) - 1]
        for index in [marked[-1], *marked[:-1][::-1]] if marked else []:  # the model's own length always has its number
            x = self._x_of(index)
            painter.drawLine(round(x), 0, round(x), 3)
            text = short_tokens(self._stops[index])
            width = metrics.horizontalAdvance(text)
            left = min(max(0.0, x - width / 2), self.width() - width)
            if all(left > right + 6 or left + width + 6 < start for start, right in taken):
                painter.drawText(round(left), metrics.ascent() + 4, text)
                taken.append((left, left + width))

    def _x_of(self, index: int) -> float:
        option = QStyleOptionSlider()
        self._slider.initStyleOption(option)
        style = self._slider.style()
        handle = style.subControlRect(
            QStyle.ComplexControl.CC_Slider, option, QStyle.SubControl.SC_SliderHandle, self._slider
        ).width()
        span = max(1, self._slider.maximum())
        return handle / 2 + index / span * (self._slider.width() - handle)
