"""What the machine is, and its measured peak: the rate of large matrix products, in every process at once."""

from __future__ import annotations

import os
import platform
import time

import torch
from joblib import cpu_count

from tmtlib.common import one_thread
from tmtlib.study.provenance import processor
from tmtlib.study.runs import in_parallel


def describe(device: torch.device) -> dict:
    """Processor or GPU, cores, memory, versions; nothing that names this one machine."""
    facts = {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": cpu_count(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16_natively": has_bfloat16(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf"):
        facts["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return facts


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()


def peak(device: str, dtype: torch.dtype, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating point operations a second of square matrix products in this process, with one thread on a CPU."""
    where = torch.device(device)
    with one_thread(device):
        x = torch.randn(size, size, device=where, dtype=dtype)
        x @ x
        started, products = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            for _ in range(8):
                y = x @ x
            y[0, 0].item()  # waits for the device
            products += 8
        return products * 2 * size**3 / (time.perf_counter() - started)


def machine_peak(device: str, dtype: torch.dtype) -> float:
    """The peak of the whole machine: a process a core on a CPU, larger products on a GPU."""
    if device == "cuda":
        return peak(device, dtype, size=8192)
    return sum(in_parallel(peak, [(device, dtype)] * cpu_count(), cpu_count()))
