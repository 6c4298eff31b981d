"""What a training asks of the machine."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raylift.training.hardware import peak_memory, supported_precision


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"architecture": "x86_64", "amx_bf16": True}, "bf16-mixed"),
        ({"architecture": "aarch64"}, "bf16-mixed"),
    ],
)
def test_bfloat16_is_used_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert supported_precision("bf16-mixed") == expected
    assert supported_precision("32-true") == "32-true"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says it besides")
def test_memory_is_what_linux_says() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    assert peak_memory(torch.device("cpu")) == pytest.approx(1024 * kilobytes, rel=0.02)


def test_a_system_that_does_not_say_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) is None
