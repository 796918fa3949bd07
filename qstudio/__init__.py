"""QStudio: see, change and re-measure how a trained network is quantized."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "DataSpec",
    "DatasetInfo",
    "LayerSettings",
    "ModelInfo",
    "Recipe",
    "RunOptions",
    "RunResult",
    "Session",
    "UserError",
    "__version__",
    "launch",
    "load_dataset",
    "open_model",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used: `import qstudio` alone costs nothing.

    By name, not by an import statement: everything in the package imports this file, and must not seem to need torch.
    """
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("qstudio.api"), name)
    raise AttributeError(f"module 'qstudio' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
