"""The processor's name and the instruction sets that decide how fast 8-bit integers are."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

_X86_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")
_ARM_FLAGS = {"asimd": "neon", "asimddp": "neon_dotprod", "i8mm": "neon_i8mm", "sve": "sve"}
_APPLE_FLAGS = {
    "hw.optional.arm.FEAT_DotProd": "neon_dotprod",
    "hw.optional.arm.FEAT_I8MM": "neon_i8mm",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512vnni": "avx512_vnni",
}
_WINDOWS_FEATURES = {40: "avx2", 41: "avx512f", 43: "neon_dotprod"}
"""IsProcessorFeaturePresent: PF_AVX2_INSTRUCTIONS_AVAILABLE, PF_AVX512F_..., PF_ARM_V82_DP_..."""

INT8_MEANING = {
    "avx2": "8-bit products are added in pairs with 16 bits: faster than float, but sums can saturate. Runs name the "
    "layers where they do; 7 bits for those weights avoid it",
    "avx512f": "wide float and integer arithmetic; without VNNI int8 still saturates at 16 bits",
    "avx512_vnni": "four 8-bit products are added to 32 bits by one instruction: int8 is fast and exact",
    "avx_vnni": "four 8-bit products are added to 32 bits by one instruction: int8 is fast and exact",
    "avx_vnni_int8": "as VNNI, for signed activations too",
    "amx_int8": "whole int8 tiles are multiplied by one instruction: the fastest int8 on x86",
    "neon": "128-bit arithmetic; without dot products int8 gains little over float",
    "neon_dotprod": "four 8-bit products are added to 32 bits by one instruction: int8 is fast and exact",
    "neon_i8mm": "small int8 matrices are multiplied by one instruction",
    "sve": "wide vectors; what int8 gains depends on onnxruntime's build",
}
"""What an instruction set means for int8 models in onnxruntime."""


@lru_cache(maxsize=1)
def processor() -> tuple[str, tuple[str, ...]]:
    """Return (name, instruction sets).

    The sets start with the family ("x86" or "arm") and go on with those that matter for int8: "avx2", "avx512f",
    "avx512_vnni", "avx_vnni", "amx_int8", "neon_dotprod", "neon_i8mm". Windows tells of AVX2, AVX-512 and dot
    products only; there VNNI is not listed even where it exists.
    """
    machine = platform.machine().lower()
    family = "arm" if "arm" in machine or "aarch" in machine else machine
    family = "x86" if machine in ("x86_64", "amd64", "i386", "i686") else family
    system = platform.system()
    name = ""
    found: list[str] = []
    if system == "Linux":
        name, found = read_cpuinfo(_text("/proc/cpuinfo"))
    elif system == "Darwin":
        name, found = _sysctl("machdep.cpu.brand_string"), [f for key, f in _APPLE_FLAGS.items() if _sysctl(key) == "1"]
    elif system == "Windows":
        name, found = _windows()
    return name or platform.processor() or machine or "unknown processor", (family, *found)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def read_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Return (name, instruction sets) from the text of /proc/cpuinfo; the name is empty where it is not told."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    found = [flag for flag in _X86_FLAGS if flag in flags]
    found += [word for flag, word in _ARM_FLAGS.items() if flag in flags]
    return fields.get("model name") or fields.get("hardware") or "", found


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(key: str) -> str:
    try:
        result = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def _windows() -> tuple[str, list[str]]:
    name = ""
    found: list[str] = []
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
                name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            name = ""
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        found = [word for number, word in _WINDOWS_FEATURES.items() if present(number)]
    return name, found
