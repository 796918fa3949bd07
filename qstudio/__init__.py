"""QStudio: see, change and re-measure how a trained network is quantized."""

__version__ = "0.1.0"
