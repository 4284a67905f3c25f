"""The one place where torchvision is imported.

Beside a CPU build of torch, PyPI's torchvision lacks its compiled operators and fails to import: its meta registrations
name two operators that were never defined. Their schemas are defined here and the import is tried again; the operators
themselves stay without a kernel, and nothing here calls them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from suite.types import BadInput

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a schema lives as long as its library


def torchvision_module(name: str) -> ModuleType:
    """A module of torchvision, such as "datasets".

    Raises:
        BadInput: torchvision is not installed, or does not fit the installed torch.
    """
    try:
        try:
            return importlib.import_module(f"torchvision.{name}")
        except RuntimeError as error:
            if "torchvision::" not in str(error) or _libraries:
                raise
        for module in [key for key in sys.modules if key.partition(".")[0] == "torchvision"]:
            del sys.modules[module]  # half imported
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _libraries.append(library)
        return importlib.import_module(f"torchvision.{name}")
    except (ImportError, RuntimeError) as error:
        raise BadInput(
            f"torchvision does not load beside torch {torch.__version__}: {str(error).splitlines()[0]}; "
            "install the two releases that belong together"
        ) from error
