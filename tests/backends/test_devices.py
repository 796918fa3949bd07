"""Every device is listed, and those that are not there say why."""

from __future__ import annotations

import sys

from qstudio.backends.devices import cuda_reason, list_devices


def test_every_device_is_available_or_says_why():
    devices = {d.id: d for d in list_devices()}
    assert devices["cpu"].available
    assert devices["onnxruntime:cpu"].available
    assert {"cuda:0", "mps", "onnxruntime:cuda"} <= set(devices)
    for device in devices.values():
        assert device.title
        assert device.available == (device.reason == "")
    if sys.platform != "darwin":
        assert devices["mps"].reason == "this is not a Mac"


def test_reasons_tell_the_cases_apart():
    reasons = {cuda_reason(built, driver) for built in (True, False) for driver in (True, False)}
    assert len(reasons) == 4
    assert cuda_reason(False, True) == "this torch build has no CUDA support"
