from __future__ import annotations

import pytest

from qstudio.backends.devices import list_devices
from qstudio.core.errors import UserError
from qstudio.quant.network import check_device


@pytest.mark.parametrize("device", ["cuda:7", "onnxruntime:cpu", "toaster"])
def test_a_device_that_cannot_be_used_is_refused_in_words(device: str) -> None:
    with pytest.raises(UserError, match="cannot be used") as caught:
        check_device(device)
    assert caught.value.where == device
    assert "cpu" in caught.value.fix


def test_every_device_offered_for_runs_can_be_used() -> None:
    offered = [device.id for device in list_devices() if device.available and device.runs_simulation]
    assert "cpu" in offered
    for device in offered:
        check_device(device)
