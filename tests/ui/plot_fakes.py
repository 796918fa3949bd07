"""Real values for the inspector's tests, and a mouse that drags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication
from ui_fakes import RecordedEngine, make_model

from qstudio.core.affine import as_groups, encode, fake_quantize
from qstudio.core.calibration import find_range
from qstudio.core.channel_error import count_channels
from qstudio.core.histogram import histogram_of
from qstudio.core.metrics import cosine, sqnr_db
from qstudio.core.model_info import ModelInfo
from qstudio.core.scheme import CHANNEL
from qstudio.core.statistics import Outlier, SiteStatistics
from qstudio.engine.messages import ActivationStatistics, LayerPreview, WeightPreview, WeightStatistics


def weight_values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return weights with channels of very different widths and a few outliers."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.3, 1.5, (shape[0], *[1] * (len(shape) - 1)))
    return (rng.standard_t(4, shape) * spread * 0.1).astype(np.float32)


def activation_values(channels: int, seed: int) -> np.ndarray:
    """Return what a ReLU puts out: many zeros, one long tail."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((16, channels, 8, 8)) - 0.3, 0).astype(np.float32)


def weight_statistics(site: str, values: np.ndarray) -> SiteStatistics:
    rows = values.reshape(len(values), -1)
    top = np.argsort(-np.abs(values).reshape(-1))[:8]
    outliers = tuple(
        Outlier(float(values.reshape(-1)[i]), -1, tuple(int(p) for p in np.unravel_index(i, values.shape))) for i in top
    )
    return SiteStatistics(site, histogram_of(values), rows.min(1), rows.max(1), outliers, 0, count_channels(rows))


def activation_statistics(site: str, values: np.ndarray) -> SiteStatistics:
    rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    largest = Outlier(float(values.max()), 17, (0, 1, 2))
    return SiteStatistics(site, histogram_of(values), rows.min(1), rows.max(1), (largest,), len(values))


class ValuesEngine(RecordedEngine):
    """Answers with statistics and previews of real arrays."""

    def __init__(self, model: ModelInfo | None = None) -> None:
        super().__init__(model or make_model())
        self.weights: dict[str, np.ndarray] = {}
        self.activations: dict[str, np.ndarray] = {}
        for number, layer in enumerate(self.model.layers):
            if layer.weight is not None:
                self.weights[layer.name] = weight_values(tuple(int(n or 1) for n in layer.weight.shape), number)
            if layer.activation is not None:
                self.activations[layer.name] = activation_values(int(layer.activation.shape[1] or 1), number)

    def answer(self, request: Any) -> Any:
        layers = self.model.layers
        match request:
            case WeightStatistics():
                return tuple(weight_statistics(la.weight.id, self.weights[la.name]) for la in layers if la.weight)
            case ActivationStatistics():
                return tuple(
                    activation_statistics(la.activation.id, self.activations[la.name]) for la in layers if la.activation
                )
            case LayerPreview():
                return self.preview(request)
        return super().answer(request)

    def preview(self, request: LayerPreview) -> WeightPreview:
        values, scheme = self.weights[request.layer], request.scheme
        if scheme.granularity.kind == "tensor":
            encoding = encode(scheme, *find_range(histogram_of(values), scheme), None)
        else:
            rows = as_groups(values, CHANNEL, 0)
            low, high = scheme.clip or (-np.inf, np.inf)
            encoding = encode(
                replace(scheme, granularity=CHANNEL), np.maximum(rows.min(1), low), np.minimum(rows.max(1), high), 0
            )
        after = fake_quantize(values, encoding)
        each = np.array([sqnr_db(a, b) for a, b in zip(values, after, strict=True)])
        return WeightPreview(
            request.layer,
            scheme,
            histogram_of(after),
            sqnr_db(values, after),
            cosine(values, after),
            each,
            encoding.low,
            encoding.high,
        )


class Mouse:
    """A mouse over one plot: positions in the plot's own units, events as a person's hand makes them."""

    def __init__(self, plot: Any) -> None:
        self.plot = plot

    def spot(self, x: float, share: float = 0.5) -> QPointF:
        """Return the pixel at x and at a share of the plot's height from its top."""
        box = self.plot.getViewBox()
        rect = box.sceneBoundingRect()
        scene = box.mapViewToScene(QPointF(x, 0.0))
        return QPointF(scene.x(), rect.top() + share * rect.height())

    def send(self, kind: QEvent.Type, at: QPointF, button: Qt.MouseButton, buttons: Qt.MouseButton) -> None:
        view = self.plot.viewport()
        globally = QPointF(view.mapToGlobal(at.toPoint()))
        QApplication.sendEvent(view, QMouseEvent(kind, at, globally, button, buttons, Qt.KeyboardModifier.NoModifier))
        QApplication.processEvents()

    def move(self, at: QPointF, buttons: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
        self.send(QEvent.Type.MouseMove, at, Qt.MouseButton.NoButton, buttons)

    def press(self, at: QPointF) -> None:
        self.move(at)
        self.send(QEvent.Type.MouseButtonPress, at, Qt.MouseButton.LeftButton, Qt.MouseButton.LeftButton)

    def release(self, at: QPointF) -> None:
        self.send(QEvent.Type.MouseButtonRelease, at, Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton)

    def drag(self, start: float, *stops: float, share: float = 0.3) -> None:
        """Press at x = start, go through the stops, let go at the last."""
        self.press(self.spot(start, share))
        for stop in stops:
            self.move(self.spot(stop, share), Qt.MouseButton.LeftButton)
        self.release(self.spot(stops[-1], share))

    def click(self, at: QPointF) -> None:
        self.press(at)
        self.release(at)

    def double_click(self, at: QPointF) -> None:
        self.click(at)
        self.send(QEvent.Type.MouseButtonDblClick, at, Qt.MouseButton.LeftButton, Qt.MouseButton.LeftButton)
        self.release(at)
