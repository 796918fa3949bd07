"""Starts Qt as the window does, draws, and says what it stands on; `qstudio doctor` runs it as a process of its own.

Some versions of PySide6 abort while drawing, and a display may be missing: neither may take the asker along.
"""

from __future__ import annotations

from PySide6.QtGui import QColor, QGuiApplication, QImage, QPainter


def main() -> None:
    """Print the platform's name and the number of screens."""
    app = QGuiApplication([])
    image = QImage(8, 8, QImage.Format.Format_RGB32)
    painter = QPainter(image)
    for _ in range(4000):  # each call drops a reference to None in the versions that abort
        painter.setPen(QColor("black"))
    painter.end()
    print(app.platformName(), len(app.screens()))


if __name__ == "__main__":
    main()
