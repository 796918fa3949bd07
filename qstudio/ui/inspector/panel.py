"""The inspector panel: what is selected, its numbers, and what its scheme costs."""

from __future__ import annotations

from typing import cast

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QKeyEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QTabWidget, QVBoxLayout, QWidget

from qstudio.core.model_info import LayerInfo
from qstudio.session.readout import Side
from qstudio.session.session import Session
from qstudio.ui.bridge import SessionBridge
from qstudio.ui.inspector.channel_page import ChannelPage
from qstudio.ui.inspector.labels import ElidedLabel
from qstudio.ui.inspector.sample_page import SamplePage
from qstudio.ui.inspector.site_page import SitePage
from qstudio.ui.inspector.weight_images import WeightImagePage
from qstudio.ui.text import tr
from qstudio.ui.theme import theme

SIDES: tuple[Side, ...] = ("weight", "activation")
CHANNELS, SAMPLE, IMAGE = 2, 3, 4
"""Tabs after those of the two sides."""

CARD_PX = 720
"""A lower panel leaves out what was found while pictures are looked at: they need the room."""

Page = SitePage | ChannelPage | SamplePage | WeightImagePage


class InspectorPanel(QFrame):
    """The first selected layer in charts; edits apply to all that are selected. Only the open tab is kept current."""

    def __init__(self, session: Session, bridge: SessionBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "surface")
        self.setAccessibleName(tr("Inspector"))
        self._session = session
        self.title = ElidedLabel("large")
        self.subtitle = ElidedLabel("normal", "muted")
        self.follow = QPushButton()
        self.follow.setProperty("role", "flat")
        self.follow.clicked.connect(self._on_follow)
        self._pages: dict[int, Page] = {}
        self._places: list[QVBoxLayout] = []
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for words, tip in (
            (tr("Weights"), tr("Values of the layer's weight and how they are quantized")),
            (tr("Activations"), tr("Values the layer puts out and how they are quantized")),
            (tr("Channels"), tr("Range of each channel against what can be represented")),
            (tr("Sample"), tr("One evaluation sample through the layers, float beside quantized")),
            (tr("Image"), tr("The layer's weight as an image: kernels or matrix, float beside quantized")),
        ):
            place = QWidget()
            layout = QVBoxLayout(place)
            layout.setContentsMargins(0, 0, 0, 0)
            self._places.append(layout)
            self.tabs.setTabToolTip(self.tabs.addTab(place, words), tip)
        self._stale: set[int] = set()
        gap = theme().px(8)
        head = QHBoxLayout()
        head.setContentsMargins(gap, theme().px(6), gap, 0)
        names = QVBoxLayout()
        names.setSpacing(0)
        names.addWidget(self.title)
        names.addWidget(self.subtitle)
        head.addLayout(names, 1)
        head.addWidget(self.follow)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(theme().px(4))
        column.addLayout(head)
        column.addWidget(self.tabs, 1)
        column.addWidget(self._make_card(bridge))
        self.tabs.currentChanged.connect(self._on_tab_changed)
        bridge.model_changed.connect(self._on_changed)
        bridge.dataset_changed.connect(self._on_changed)
        bridge.selection_changed.connect(self._on_changed)
        bridge.recipe_changed.connect(self._on_changed)
        bridge.statistics_changed.connect(self._on_statistics_changed)
        bridge.preview_changed.connect(self._on_preview_changed)
        bridge.work_changed.connect(self._on_work_changed)
        bridge.runs_changed.connect(self._on_sample_changed)
        bridge.sample_traced.connect(self._on_sample_changed)
        bridge.weight_pictured.connect(self._on_image_changed)
        bridge.sample_asked.connect(self._on_sample_asked)
        self._on_changed(None)

    def _make_card(self, bridge: SessionBridge) -> QWidget:
        from qstudio.ui.findings.why_card import WhyCard  # it needs labels of this package, which comes first

        self.why = WhyCard(self._session, bridge)
        return self.why

    @property
    def layer(self) -> LayerInfo | None:
        """The layer shown: the first of the selection."""
        return self._session.current_layer

    def sizeHint(self) -> QSize:
        """Ask for what the controls need."""
        return QSize(theme().px(420), theme().px(640))

    def minimumSizeHint(self) -> QSize:
        """Allow a narrow panel; pages scroll."""
        return QSize(theme().px(380), theme().px(240))

    def _on_changed(self, _value: object) -> None:
        self._show_title()
        self._stale = set(range(self.tabs.count()))
        self._refresh_open_tab()

    def _make_room(self) -> None:
        """Show what was found below the pages, unless a picture needs the room."""
        needed = self.tabs.currentIndex() in (SAMPLE, IMAGE) and self.height() < theme().px(CARD_PX)
        self.why.setVisible(not needed)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Flip float and quantized with Space, wherever on a tab of pictures."""
        page = self._pages.get(self.tabs.currentIndex())
        if event.key() == Qt.Key.Key_Space and isinstance(page, SamplePage | WeightImagePage):
            page.flip()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Use the room there is."""
        super().resizeEvent(event)
        self._make_room()

    def _on_tab_changed(self, _index: int) -> None:
        self._make_room()
        self._refresh_open_tab()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while it was not seen."""
        super().showEvent(event)
        self._refresh_open_tab()

    def _refresh_open_tab(self) -> None:
        index = self.tabs.currentIndex()
        if index in self._stale and self.isVisible():  # else when it is shown: a slid budget asks fifty times
            self._stale.discard(index)
            self._page(index).refresh(self.layer)

    def _on_sample_changed(self, _value: object) -> None:
        self._stale.add(SAMPLE)
        self._refresh_open_tab()

    def _on_image_changed(self, _value: object) -> None:
        self._stale.add(IMAGE)
        self._refresh_open_tab()

    def _page(self, index: int) -> Page:
        """Return a tab's page, made when it is first looked at: each takes some 60 ms."""
        if index not in self._pages:
            page = self._make(index)
            self._places[index].addWidget(page)
            self._pages[index] = page
        return self._pages[index]

    def _make(self, index: int) -> Page:
        if index == CHANNELS:
            return ChannelPage(self._session)
        if index == SAMPLE:
            sample = SamplePage(self._session)
            sample.channel_chosen.connect(self._on_channel_of_sample)
            return sample
        if index == IMAGE:
            image = WeightImagePage(self._session)
            image.channel_chosen.connect(self._on_channel_of_weight)
            return image
        return SitePage(self._session, SIDES[index])

    def _on_channel_of_sample(self, channel: int) -> None:
        self._show_channel("activation", channel)

    def _on_channel_of_weight(self, channel: int) -> None:
        self._show_channel("weight", channel)

    def _show_channel(self, side: Side, channel: int) -> None:
        self.tabs.setCurrentIndex(CHANNELS)
        self.channels.show_channel(side, channel)

    def _on_sample_asked(self, _index: int) -> None:
        self.tabs.setCurrentIndex(SAMPLE)

    @property
    def weights(self) -> SitePage:
        """The page of the weights."""
        return cast("SitePage", self._page(0))

    @property
    def activations(self) -> SitePage:
        """The page of the tensor the layer puts out."""
        return cast("SitePage", self._page(1))

    @property
    def channels(self) -> ChannelPage:
        """The page of the channels."""
        return cast("ChannelPage", self._page(CHANNELS))

    @property
    def sample(self) -> SamplePage:
        """The page of one sample through the layers."""
        return cast("SamplePage", self._page(SAMPLE))

    @property
    def image(self) -> WeightImagePage:
        """The page of the weight as an image."""
        return cast("WeightImagePage", self._page(IMAGE))

    def _on_statistics_changed(self, kind: str) -> None:
        self._stale |= {0, CHANNELS} if kind == "weights" else {1, CHANNELS, SAMPLE}
        self._refresh_open_tab()

    def _on_preview_changed(self, layer: str) -> None:
        if self.layer is not None and layer == self.layer.name:
            self._stale |= {0, CHANNELS}
            self._refresh_open_tab()

    def _on_work_changed(self, _jobs: object) -> None:
        """Keep the words about progress current; pages that show data have nothing to learn from it."""
        index = self.tabs.currentIndex()
        page = self._page(index)
        if page.message:
            page.refresh(self.layer)

    def _show_title(self) -> None:
        layer, selection = self.layer, self._session.selection
        self.follow.setVisible(False)
        if layer is None:
            self.title.set_full_text(tr("No layer selected"))
            self.subtitle.set_full_text(tr("Select one in the table"))
            return
        if len(selection) > 1:
            self.title.set_full_text(f"{len(selection)} {tr('layers')}")
            self.subtitle.set_full_text(f"{tr('Edits apply to all; charts show')} {layer.name}")
            return
        self.title.set_full_text(layer.name)
        self.subtitle.set_full_text(f"{layer.op_type}  {layer.title}".strip())
        if layer.activation is None and layer.shares_with:
            self.follow.setText(f"→ {layer.shares_with}"[:28])
            self.follow.setToolTip(f"{tr('Select the layer whose encoding the output uses')}: {layer.shares_with}")
            self.follow.setVisible(True)

    def _on_follow(self) -> None:
        if self.layer is not None and self.layer.shares_with:
            self._session.select((self.layer.shares_with,))
