"""Writes a fold's checkpoints atomically; Lightning's own way goes through the temporary folder."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from fmnist_cv.engine.run_folder import replace_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint atomically, the fold's own and those of a user's ModelCheckpoint.

    Args:
        fold: the fold's folder; it is not recreated if it is deleted while the fold runs.
    """

    def __init__(self, fold: Path) -> None:
        super().__init__()
        self._fold = fold

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):  # remote storage, which Lightning handles
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if not self._fold.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        content = io.BytesIO()  # in memory first, since torch hides the reason of an error while it writes to a file
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), lambda file: file.write(content.getbuffer()))
