"""The app's icons: SVG files in ``resources/icons``, drawn in a theme's colours for every pixel density. UI thread."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from kvdesk.paths import resource_dir
from kvdesk.ui.widgets.theme import Theme, mix

DENSITIES = (1, 2, 3)
"""Device pixel ratios that each icon holds a sharp picture for; Qt scales for those between."""


@lru_cache(maxsize=128)
def icon(name: str, theme: Theme, color: str = "", size: int = 16) -> QIcon:
    """The icon ``resources/icons/NAME.svg`` in ``color`` (default: the theme's text), faint when disabled.

    ``size`` is in device-independent pixels. Raises FileNotFoundError for a name that has no file.
    """
    svg = (resource_dir() / "icons" / f"{name}.svg").read_text(encoding="utf-8")
    normal = color or theme.text
    result = QIcon()
    for mode, tint in (
        (QIcon.Mode.Normal, normal),
        (QIcon.Mode.Disabled, mix(normal, theme.surface, 0.6)),
    ):
        renderer = QSvgRenderer(QByteArray(svg.replace("currentColor", tint).encode()))
        for density in DENSITIES:
            pixmap = QPixmap(size * density, size * density)
            pixmap.setDevicePixelRatio(density)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            renderer.render(painter, QRectF(0, 0, size, size))
            painter.end()
            result.addPixmap(pixmap, mode)
    return result


def app_icon() -> QIcon:
    """The icon of windows and task bars."""
    return QIcon(str(resource_dir() / "kvdesk.svg"))
