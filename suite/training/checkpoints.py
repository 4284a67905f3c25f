"""Checkpoints: one file a run, checked when read, replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import torch

from suite.types import BadInput

State: TypeAlias = dict[str, Any]
"""Tensors, numbers, strings, lists and dicts."""

MAGIC = b"kendall checkpoint 1 "


class Checkpoints:
    """The runs under way, in a folder that is made with the first of them; `key` is all that a run depends on.

    Raises:
        BadInput: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            why = os.strerror(errno.EACCES if there.is_dir() else errno.ENOTDIR)
            raise BadInput(f"{folder}: cannot hold checkpoints ({why}); name another folder")

    def path(self, key: str) -> Path:
        """Where the run is kept."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"

    def load(self, key: str) -> State | None:
        """The state that was saved last, on the CPU; None if nothing was, or (with a warning) if it is damaged."""
        path = self.path(key)
        try:
            header, _, payload = path.read_bytes().partition(b"\n")
            if header != MAGIC + hashlib.sha256(payload).hexdigest().encode():
                raise ValueError("its contents do not match its checksum")
            kept: State = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            if kept["key"] != key:
                raise ValueError("it is of another run")
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged file makes torch.load raise
            warnings.warn(f"{path}: damaged checkpoint ignored ({error}); trained again from the start", stacklevel=2)
            return None
        state: State = kept["state"]
        return state

    def save(self, key: str, state: State) -> None:
        """Keep `state` in place of what was kept.

        Raises:
            BadInput: It cannot be written; what was kept before is still there.
        """
        buffer = io.BytesIO()
        torch.save({"key": key, "state": state}, buffer)
        payload = buffer.getvalue()
        path = self.path(key)
        temporary = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise BadInput(f"{path}: cannot be written ({error.strerror}); free or change the folder") from None
