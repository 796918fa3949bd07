"""Where a model can run, and in words why not elsewhere."""

from __future__ import annotations

import platform
import shutil
import sys

from qstudio.core.processor import processor
from qstudio.core.results import Device

_PROVIDERS = {
    "CUDAExecutionProvider": ("onnxruntime, NVIDIA GPU", "onnxruntime-gpu", "linux win32"),
    "TensorrtExecutionProvider": ("onnxruntime, TensorRT", "onnxruntime-gpu and TensorRT", "linux win32"),
    "OpenVINOExecutionProvider": ("onnxruntime, OpenVINO", "onnxruntime-openvino", "linux win32"),
    "DmlExecutionProvider": ("onnxruntime, DirectML", "onnxruntime-directml", "win32"),
    "CoreMLExecutionProvider": ("onnxruntime, Core ML", "onnxruntime for macOS", "darwin"),
}


def list_devices() -> tuple[Device, ...]:
    """Return all places to run on, those that are not available too, each with its reason.

    "cpu", "cuda:N" and "mps" are torch's and can be chosen for a job; "onnxruntime:NAME" are onnxruntime's execution
    providers, of which exports are verified and timed on the CPU's.
    """
    return (Device("cpu", f"CPU ({processor()[0]})", True), *_cuda(), _mps(), *_providers())


def _cuda() -> tuple[Device, ...]:
    import torch

    is_built = torch.version.cuda is not None
    if is_built and torch.cuda.is_available():
        return tuple(
            Device(f"cuda:{i}", f"NVIDIA GPU {i} ({torch.cuda.get_device_name(i)})", True)
            for i in range(torch.cuda.device_count())
        )
    return (Device("cuda:0", "NVIDIA GPU", False, cuda_reason(is_built, has_driver())),)


def has_driver() -> bool:
    """Return whether an NVIDIA driver is installed (its nvidia-smi is found)."""
    return shutil.which("nvidia-smi") is not None


def cuda_reason(is_built: bool, driver: bool) -> str:
    """Return why there is no CUDA device, given whether torch was built with CUDA and whether there is a driver."""
    if not driver:
        return "no NVIDIA driver was found" + ("" if is_built else ", and this torch build has no CUDA support")
    return "the NVIDIA driver shows no usable GPU" if is_built else "this torch build has no CUDA support"


def _mps() -> Device:
    import torch

    title = "Apple GPU (Metal)"
    if platform.system() != "Darwin":
        return Device("mps", title, False, "this is not a Mac")
    if not torch.backends.mps.is_built():
        return Device("mps", title, False, "this torch build has no Metal support")
    if not torch.backends.mps.is_available():
        return Device("mps", title, False, "this Mac or its macOS is too old for Metal in torch")
    return Device("mps", title, True)


def _providers() -> tuple[Device, ...]:
    import onnxruntime

    present = set(onnxruntime.get_available_providers())
    found = [Device("onnxruntime:cpu", "onnxruntime, CPU", True, runs_simulation=False)]
    for provider, (title, package, systems) in _PROVIDERS.items():
        reason = ""
        if provider not in present:
            fits = sys.platform in systems.split()
            reason = f"this onnxruntime has no {title.split(', ')[1]} support" + (
                f": it comes with {package}" if fits else ", which this system does not offer"
            )
        name = provider.removesuffix("ExecutionProvider").lower()
        found.append(Device(f"onnxruntime:{name}", title, provider in present, reason, runs_simulation=False))
    return tuple(found)
