"""Checkpoints read as tensors and plain values: damage is detected, and no other objects are unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_cv.utils.files import regular_file

if TYPE_CHECKING:
    import torch


def check_records(path: Path) -> None:
    """Compare each record of a checkpoint with its CRC-32, which torch writes but does not check when it loads.

    Raises:
        zipfile.BadZipFile: a record has changed, or the file is truncated.
        UserError: it is not a regular file.
        OSError: it is missing or out of reach.
    """
    with zipfile.ZipFile(regular_file(path)) as archive:
        if (record := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of its record {record} is wrong")


def read_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """What a checkpoint holds.

    Raises:
        Exception: of many kinds: it is missing, not a regular file, damaged, or holds other objects than tensors and plain
            values.
    """
    import torch  # here, since commands that only read results check records, too

    path = regular_file(path)
    if zipfile.is_zipfile(path):  # a file in torch's format before 1.6 has no checksums
        check_records(path)
    return torch.load(path, map_location=device, weights_only=True)
