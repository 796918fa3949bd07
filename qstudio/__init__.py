"""QStudio: see, change and re-measure how a trained network is quantized."""

from __future__ import annotations

import os
from typing import Any

__version__ = "0.1.0"

# onnxruntime 1.29 and later send events over the network unless told not to before they are loaded; nothing here does.
# Engine processes inherit it. Somebody who wants the events can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Threads of torch that wait by spinning take the cores from the window and from whatever else runs: on two busy cores
# 256 images of a ResNet-20 take 7.9 s with them and 0.6 s without. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = [
    "DataSpec",
    "DatasetInfo",
    "LayerSettings",
    "ModelInfo",
    "Recipe",
    "RunOptions",
    "RunResult",
    "Session",
    "TrainResult",
    "Training",
    "UserError",
    "__version__",
    "launch",
    "load_dataset",
    "open_model",
    "open_project",
    "quantize",
    "train",
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
