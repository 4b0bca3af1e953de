"""What the mouse wheel must not do: change a setting that scrolls past under the pointer, or scroll when it zooms. UI thread."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QWidget


def leave_wheel_to_the_page(widget: QWidget) -> None:
    """Let the wheel change ``widget`` (a number box, a choice, a slider) only once it has the keyboard."""
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_WheelGuard(widget))


def zooms(event: QWheelEvent) -> bool:
    """Whether this turn of the wheel is the window's zoom (Ctrl is held): a view that scrolls ignores it."""
    return bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)


class _WheelGuard(QObject):
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return False
