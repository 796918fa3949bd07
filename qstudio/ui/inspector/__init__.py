"""The inspector: one layer's numbers, what its scheme costs, and the controls to change it."""

from qstudio.ui.inspector.panel import InspectorPanel

__all__ = ["InspectorPanel"]
