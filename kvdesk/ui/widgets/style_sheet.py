"""The one style sheet of the app, written for Qt's Fusion style. Whoever owns the QApplication applies it; widgets get the Theme."""

from __future__ import annotations

from kvdesk.paths import resource_dir
from kvdesk.ui.widgets.theme import LEAST_BODY_POINTS, Theme, mix


def style_sheet(theme: Theme, body_points: float = LEAST_BODY_POINTS) -> str:
    """The app's style sheet, for body text of ``body_points``.

    Roles (dynamic property ``role``): "card", "primary", "danger", "muted", "heading", "amber", "red", "green",
    "flat" (a button without a frame), "chip" (a word that switches something on and off).
    """
    values = {
        "window": theme.window,
        "surface": theme.surface,
        "raised": theme.surface_raised,
        "border": theme.border,
        "border_strong": mix(theme.border, theme.text_muted, 0.35),
        "text": theme.text,
        "muted": theme.text_muted,
        "faint": mix(theme.text_muted, theme.surface, 0.35),
        "accent": theme.accent,
        "accent_hover": mix(theme.accent, theme.text, 0.15),
        "accent_text": theme.accent_text,
        "code": theme.code_background,
        "amber": theme.amber,
        "amber_soft": mix(theme.surface, theme.amber, 0.12),
        "red": theme.red,
        "red_soft": mix(theme.surface, theme.red, 0.12),
        "green": theme.green,
        "selection": theme.selection,
        "handle": mix(theme.surface_raised, theme.text_muted, 0.45),
        "handle_hover": mix(theme.surface_raised, theme.text_muted, 0.75),
        "icons": (resource_dir() / "icons").as_posix(),
        "theme": theme.name,
        "small_points": f"{body_points - 1:g}",
        "title_points": f"{1.5 * body_points:g}",
    }
    sheet = _SHEET
    for name, value in values.items():
        sheet = sheet.replace(f"@{name}@", value)
    return sheet


_SHEET = """
QMainWindow, QDialog, QMessageBox { background: @window@; color: @text@; }
QToolTip { background: @raised@; color: @text@; border: 1px solid @border@; padding: 4px 6px; }

QFrame[role="card"] { background: @surface@; border: 1px solid @border@; border-radius: 8px; }
QLabel { background: transparent; }
QLabel[role="muted"] { color: @muted@; }
QLabel[role="heading"] { font-weight: 600; }
QLabel[role="amber"] { color: @amber@; }
QLabel[role="red"] { color: @red@; }
QLabel[role="green"] { color: @green@; }
QLabel[small="true"] { font-size: @small_points@pt; }

QPushButton { background: @surface@; color: @text@; border: 1px solid @border_strong@; border-radius: 6px;
    padding: 4px 12px; min-height: 18px; }
QPushButton:hover { background: @raised@; }
QPushButton:pressed { background: @border@; }
QPushButton:focus { border-color: @accent@; }
QPushButton:checked { background: @selection@; border-color: @accent@; }
QPushButton:disabled { color: @faint@; background: transparent; border-color: @border@; }
QPushButton[role="primary"] { background: @accent@; color: @accent_text@; border-color: @accent@; font-weight: 600; }
QPushButton[role="primary"]:hover { background: @accent_hover@; border-color: @accent_hover@; }
QPushButton[role="primary"]:focus { border-color: @text@; }
QPushButton[role="primary"]:disabled { background: @raised@; color: @faint@; border-color: @border@; }
QPushButton[role="danger"] { color: @red@; border-color: @red@; }
QPushButton[role="danger"]:hover { background: @red_soft@; }
QPushButton[role="flat"] { background: transparent; border-color: transparent; padding: 4px 8px; }
QPushButton[role="flat"]:hover { background: @raised@; }
QPushButton[role="flat"]:focus { border-color: @accent@; }

QToolButton { background: transparent; color: @text@; border: 1px solid transparent; border-radius: 6px; padding: 3px; }
QToolButton:hover { background: @raised@; }
QToolButton:pressed, QToolButton:checked { background: @selection@; }
QToolButton:focus { border-color: @accent@; }
QToolButton:disabled { color: @faint@; }
QPushButton[role="chip"] { background: transparent; border: none; border-radius: 3px; padding: 0; min-height: 0;
    color: @faint@; font-size: @small_points@pt; text-align: left; }
QPushButton[role="chip"]:checked { background: transparent; color: @muted@; }
QPushButton[role="chip"]:hover { background: @raised@; }
QPushButton[role="chip"]:focus { background: @selection@; color: @text@; }

QLineEdit, QPlainTextEdit, QTextEdit, QSpinBox, QDoubleSpinBox, QComboBox { background: @surface@; color: @text@;
    border: 1px solid @border_strong@; border-radius: 6px;
    selection-background-color: @selection@; selection-color: @text@; }
QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox { padding: 3px 8px; min-height: 18px; }
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus, QComboBox:focus {
    border-color: @accent@; }
QLineEdit:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled, QComboBox:disabled { color: @faint@;
    border-color: @border@; background: transparent; }
QComboBox { padding-right: 22px; }
QComboBox::drop-down { subcontrol-origin: padding; subcontrol-position: center right; width: 22px; border: none; }
QComboBox::down-arrow { image: url("@icons@/arrow-down-@theme@.svg"); width: 12px; height: 12px; }
QComboBox QAbstractItemView { background: @surface@; color: @text@; border: 1px solid @border_strong@;
    selection-background-color: @selection@; selection-color: @text@; outline: none; padding: 2px; }
QSpinBox, QDoubleSpinBox { padding-right: 20px; }
QSpinBox::up-button, QDoubleSpinBox::up-button { subcontrol-origin: border; subcontrol-position: top right;
    width: 18px; border: none; }
QSpinBox::down-button, QDoubleSpinBox::down-button { subcontrol-origin: border; subcontrol-position: bottom right;
    width: 18px; border: none; }
QSpinBox::up-arrow, QDoubleSpinBox::up-arrow { image: url("@icons@/arrow-up-@theme@.svg"); width: 10px; height: 10px; }
QSpinBox::down-arrow, QDoubleSpinBox::down-arrow { image: url("@icons@/arrow-down-@theme@.svg");
    width: 10px; height: 10px; }

QCheckBox, QRadioButton { color: @text@; spacing: 6px; background: transparent; }
QCheckBox:disabled, QRadioButton:disabled { color: @faint@; }
QCheckBox::indicator, QRadioButton::indicator { width: 14px; height: 14px; background: @surface@;
    border: 1px solid @border_strong@; border-radius: 4px; }
QRadioButton::indicator { border-radius: 8px; }
QCheckBox::indicator:hover, QRadioButton::indicator:hover, QCheckBox:focus::indicator, QCheckBox::indicator:focus,
    QRadioButton::indicator:focus { border-color: @accent@; }
QCheckBox::indicator:checked { background: @accent@; border-color: @accent@;
    image: url("@icons@/check-@theme@.svg"); }
QRadioButton::indicator:checked { background: @accent_text@; border: 5px solid @accent@; width: 6px; height: 6px; }
QCheckBox::indicator:disabled, QRadioButton::indicator:disabled { background: @raised@; border-color: @border@; }

QSlider { min-height: 20px; }
QSlider::groove:horizontal { height: 4px; background: @border@; border-radius: 2px; }
QSlider::sub-page:horizontal { background: @accent@; border-radius: 2px; }
QSlider::sub-page:horizontal:disabled { background: @border_strong@; }
QSlider::handle:horizontal { width: 14px; height: 14px; margin: -6px 0; border-radius: 8px;
    background: @surface@; border: 2px solid @accent@; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: @accent@; }
QSlider::handle:horizontal:disabled { border-color: @border_strong@; }

QProgressBar { background: @border@; border: none; border-radius: 3px; min-height: 6px; max-height: 6px;
    color: transparent; }
QProgressBar::chunk { background: @accent@; border-radius: 3px; }

QListView, QTreeView, QTableView { background: @surface@; color: @text@; border: none; outline: none;
    alternate-background-color: @window@; selection-background-color: @selection@; selection-color: @text@; }
QListView::item { border-radius: 6px; min-height: 24px; padding: 0 6px; }
QListView::item:hover { background: @raised@; }
QListView::item:selected { background: @selection@; color: @text@; }
QTreeView::item, QTableView::item { padding: 2px 6px; }
QHeaderView { background: @surface@; }
QHeaderView::section { background: @surface@; color: @muted@; border: none; border-bottom: 1px solid @border@;
    padding: 4px 6px; font-weight: 600; }
QTableView { gridline-color: @border@; }
QTableCornerButton::section { background: @surface@; border: none; }

QTabWidget::pane { border: none; border-top: 1px solid @border@; }
QTabBar { background: transparent; }
QTabBar::tab { background: transparent; color: @muted@; padding: 6px 12px; border: none;
    border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: @text@; }
QTabBar::tab:selected { color: @text@; border-bottom-color: @accent@; }
QTabBar::tab:focus { color: @accent@; }

QMenuBar { background: @window@; color: @text@; }
QMenuBar::item { background: transparent; padding: 4px 8px; border-radius: 4px; }
QMenuBar::item:selected { background: @raised@; }
QMenu { background: @surface@; color: @text@; border: 1px solid @border_strong@; padding: 4px; }
QMenu::item { padding: 5px 24px 5px 12px; border-radius: 4px; }
QMenu::item:selected { background: @selection@; }
QMenu::item:disabled { color: @faint@; }
QMenu::separator { height: 1px; background: @border@; margin: 4px 8px; }
QMenu::icon { padding-left: 8px; }

QStatusBar { background: @window@; color: @muted@; }
QStatusBar::item { border: none; }

QSplitter::handle { background: @border@; }
QSplitter::handle:horizontal { width: 1px; }
QSplitter::handle:vertical { height: 1px; }
QSplitter::handle:hover { background: @accent@; }

QScrollArea { background: transparent; border: none; }
QScrollBar { background: transparent; border: none; }
QScrollBar:vertical { width: 12px; }
QScrollBar:horizontal { height: 12px; }
QScrollBar::handle { background: @handle@; border-radius: 4px; margin: 2px; }
QScrollBar::handle:hover { background: @handle_hover@; }
QScrollBar::handle:vertical { min-height: 32px; }
QScrollBar::handle:horizontal { min-width: 32px; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }

QTextBrowser#prose, QPlainTextEdit#code { background: transparent; border: none; border-radius: 0; padding: 0; }
QTextBrowser#prose[role="muted"] { color: @muted@; }
QFrame#popover { background: @window@; border: 1px solid @border_strong@; border-radius: 8px; }
QFrame#code_card { background: @code@; border: 1px solid @border@; border-radius: 8px; }
QFrame#notice { background: @raised@; border: 1px solid @border@; border-radius: 8px; }
QFrame#notice[kind="warning"] { background: @amber_soft@; border-color: @amber@; }
QFrame#notice[kind="error"] { background: @red_soft@; border-color: @red@; }
QLabel#empty_title { font-size: @title_points@pt; font-weight: 600; }
QPushButton#starter { padding: 7px 14px; }
QPushButton#thinking { background: transparent; border-color: transparent; color: @muted@; padding: 2px 6px;
    text-align: left; }
QPushButton#thinking:hover { color: @text@; background: @raised@; }
QPushButton#thinking:focus { border-color: @accent@; }
QPushButton#jump { background: @surface@; border-radius: 14px; padding: 4px 12px; }
QPushButton#jump:hover { background: @raised@; }

QGroupBox { border: 1px solid @border@; border-radius: 8px; margin-top: 10px; padding-top: 8px; color: @text@; }
QGroupBox::title { subcontrol-origin: margin; left: 10px; padding: 0 4px; color: @muted@; }
"""
