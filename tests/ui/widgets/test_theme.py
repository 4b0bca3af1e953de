"""Both themes can be read, by colour-blind eyes too, and every icon and colour that the app asks for exists."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QApplication, QLabel, QPushButton

from kvdesk.paths import resource_dir
from kvdesk.ui.chat.highlighter import code_colors
from kvdesk.ui.widgets.icons import app_icon, icon
from kvdesk.ui.widgets.style_sheet import style_sheet
from kvdesk.ui.widgets.theme import (
    DARK,
    LIGHT,
    Theme,
    body_font,
    mix,
    mono_font,
    palette,
    set_role,
    theme_named,
)

THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
AREAS = ("weights", "kv_used", "kv_free", "compute", "overhead", "others")
# Machado, Oliveira, Fernandes 2009: how each kind of colour blindness, at full strength, sees linear RGB.
EYES = {
    "usual": np.eye(3),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanope": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> np.ndarray:
    parts = np.array([int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(color: str, other: str) -> float:
    """WCAG 2: 1 to 21."""
    low, high = sorted(float(TO_XYZ[1] @ linear(c)) for c in (color, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@THEMES
def test_text_can_be_read_on_every_background(theme: Theme) -> None:
    for background in (theme.window, theme.surface, theme.surface_raised, theme.code_background):
        for name in ("text", "text_muted", "accent", "amber", "red", "green"):
            assert contrast(getattr(theme, name), background) >= 4.5, (name, background)
    assert contrast(theme.accent_text, theme.accent) >= 4.5
    assert contrast(theme.text, theme.selection) >= 4.5


@THEMES
def test_code_can_be_read(theme: Theme) -> None:
    for name, color in dataclasses.asdict(code_colors(theme)).items():
        assert contrast(color, theme.code_background) >= 4.5, name


@THEMES
def test_chart_colours_stand_out_from_the_surface(theme: Theme) -> None:
    for name, color in dataclasses.asdict(theme.chart).items():
        if name != "grid":
            assert contrast(color, theme.surface) >= 3, name


@THEMES
@pytest.mark.parametrize("eyes", EYES)
def test_chart_areas_can_be_told_apart(theme: Theme, eyes: str) -> None:
    seen = {name: lab(EYES[eyes] @ linear(getattr(theme.chart, name))) for name in AREAS}
    for one, other in itertools.combinations(AREAS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 12, (one, other)


@THEMES
def test_style_sheet_is_whole_and_its_pictures_exist(theme: Theme) -> None:
    sheet = style_sheet(theme)
    assert "@" not in sheet
    assert sheet.count("{") == sheet.count("}")
    pictures = re.findall(r'url\("([^"]+)"\)', sheet)
    assert pictures
    for picture in pictures:
        assert (resource_dir() / "icons" / picture.rsplit("/", 1)[1]).is_file()


def test_style_sheet_reaches_widgets_by_role(qtbot, qapp: QApplication) -> None:
    label, button = QLabel("text"), QPushButton("go")
    for widget in (label, button):
        qtbot.addWidget(widget)
        widget.setStyleSheet(style_sheet(DARK))
        widget.ensurePolished()
    set_role(label, "muted")
    assert label.palette().color(QPalette.ColorRole.WindowText).name() == DARK.text_muted
    set_role(label, "red")
    assert label.palette().color(QPalette.ColorRole.WindowText).name() == DARK.red
    set_role(button, "primary")
    assert button.palette().color(QPalette.ColorRole.ButtonText).name() == DARK.accent_text


@THEMES
def test_palette_agrees(theme: Theme) -> None:
    colors = palette(theme)
    assert colors.color(QPalette.ColorRole.Window).name() == theme.window
    assert colors.color(QPalette.ColorRole.Text).name() == theme.text
    disabled = colors.color(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text).name()
    assert disabled not in (theme.text, theme.surface)


def test_named_themes() -> None:
    assert theme_named("light", is_system_dark=True) is LIGHT
    assert theme_named("dark") is DARK
    assert theme_named("system") is LIGHT
    assert theme_named("system", is_system_dark=True) is DARK


def test_fonts(qapp: QApplication) -> None:
    body = body_font()
    mono = mono_font(body)
    assert mono.pointSizeF() <= body.pointSizeF()


def test_mix_ends() -> None:
    assert mix("#102030", "#ffffff", 0) == "#102030"
    assert mix("#102030", "#ffffff", 1) == "#ffffff"
    assert mix("#000000", "#ffffff", 0.5) == "#808080"


@THEMES
def test_every_icon_draws_in_the_asked_colour(theme: Theme, qapp: QApplication) -> None:
    names = [
        path.stem for path in (resource_dir() / "icons").glob("*.svg") if not path.stem.endswith(("-light", "-dark"))
    ]
    wanted = {"send", "stop", "copy", "regenerate", "edit", "chevron-left", "chevron-right", "gear", "eject"}
    assert wanted | {"search", "plus", "trash"} <= set(names)
    for name in names:
        picture = icon(name, theme, theme.red).pixmap(QSize(16, 16), 2).toImage()
        assert picture.width() == 32
        solid = {
            picture.pixelColor(x, y).name()
            for x in range(32)
            for y in range(32)
            if picture.pixelColor(x, y).alpha() == 255
        }
        assert solid == {theme.red}, name


def test_unknown_icon(qapp: QApplication) -> None:
    with pytest.raises(FileNotFoundError):
        icon("no-such-icon", LIGHT)


def test_app_icon_draws(qapp: QApplication) -> None:
    assert not app_icon().pixmap(QSize(64, 64)).isNull()
