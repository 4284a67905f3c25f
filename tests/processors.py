"""The numeric tests under the instructions of other processors: oneDNN's, torch's own kernels', numba's.

A limit above what this processor has changes nothing, so a machine without AVX-512 runs its own instructions twice and
says so. `tox -e processors`; words after it go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = (
    *(f"tests/suite/{package}" for package in ("networks", "training", "data", "evaluators")),
    *(f"tests/searchers/test_{name}.py" for name in ("darts", "single_darts", "gdas", "snas", "ms_darts")),
)
NARROW = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
"""Machine code of numba without AVX-512."""
PROCESSORS: dict[str, dict[str, str]] = {
    "as it is": {},
    "SSE 4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", **NARROW},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", **NARROW},
    "AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512"},
}
ROOT = Path(__file__).resolve().parents[1]


def main(words: list[str]) -> int:
    """Run the tests once for each processor; the exit code is 1 if any run failed."""
    flags = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), ""
    ).split()
    failed = []
    for name, settings in PROCESSORS.items():
        if name == "AVX-512" and "avx512f" not in flags:
            print("AVX-512: skipped, this processor has none", flush=True)
            continue
        print(f"{name}: {' '.join(f'{key}={value}' for key, value in settings.items()) or 'no limits'}", flush=True)
        with tempfile.TemporaryDirectory(prefix="kendall-numba-") as cache:
            command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-m", "not slow and not gpu"]
            done = subprocess.run(
                [*command, *TESTS, *words],
                cwd=ROOT,
                env={**os.environ, **settings, "NUMBA_CACHE_DIR": cache},
                check=False,
            )
        if done.returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "every processor passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
