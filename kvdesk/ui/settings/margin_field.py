"""How much memory is kept free below the ceiling: a labelled number of MiB, or automatic. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QHBoxLayout, QSpinBox, QWidget

from kvdesk.backend.settings import AUTOMATIC_MARGIN, MARGIN_HELP
from kvdesk.sizes import MIB
from kvdesk.ui.widgets.plain_text import PlainLabel
from kvdesk.ui.widgets.wheel import leave_wheel_to_the_page

STEP_MIB = 128
MOST_MIB = 1 << 20


class MarginField(QWidget):
    """Shows a margin and says when the user has chosen another."""

    chosen = Signal(object)
    """Bytes: an int, which Qt's own would cut to 32 bits."""

    def __init__(self, label_width_px: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = box = QSpinBox()
        leave_wheel_to_the_page(box)
        box.setRange(AUTOMATIC_MARGIN // MIB, MOST_MIB)
        box.setSingleStep(STEP_MIB)
        box.setSpecialValueText(self.tr("automatic"))
        box.setValue(AUTOMATIC_MARGIN // MIB)
        box.setSuffix(" MiB")
        box.setGroupSeparatorShown(True)
        box.setKeyboardTracking(False)
        box.lineEdit().setTextMargins(6, 0, 0, 0)  # a style sheet's padding does not reach the text
        box.setAccessibleName(self.tr("Kept free"))
        box.valueChanged.connect(lambda mebibytes: self.chosen.emit(mebibytes * MIB))
        label = PlainLabel(self.tr("Kept free"))
        label.setMinimumWidth(label_width_px)
        label.setBuddy(box)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        layout.addWidget(label)
        layout.addWidget(box, 1)
        for widget in (label, box):
            widget.setToolTip(MARGIN_HELP)

    def set_value(self, margin_bytes: int) -> None:
        """Show ``margin_bytes``; emits nothing."""
        with QSignalBlocker(self._box):
            self._box.setValue(margin_bytes // MIB)
