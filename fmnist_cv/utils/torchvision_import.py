"""Makes a CUDA build of torchvision importable with a CPU-only torch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_stub: Any = None  # the operators exist as long as this torch.library.Library does


def prepare_torchvision_import() -> None:
    """Have `make_torchvision_importable` called when torchvision is about to be imported, by whatever module."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _BeforeImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeImport())


class _BeforeImport(MetaPathFinder):
    """Finds no module itself; it notices the import of torchvision, so that commands without torch need not import it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            make_torchvision_importable()
        return None


def make_torchvision_importable() -> None:
    """Define torchvision's two operator schemas where its compiled operators cannot be loaded.

    A CUDA build of torchvision with a CPU-only torch cannot load its operators, and then its import fails
    on registering fake kernels for them. With the schemas defined, everything but those operators works.
    """
    global _stub
    if _stub is not None or "torchvision" in sys.modules:
        return
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    extension = next(Path(spec.origin).parent.glob("_C*.so"), None)
    if extension is None:
        return

    import torch

    try:
        torch.ops.load_library(str(extension))  # type: ignore[no-untyped-call]
    except OSError:
        _stub = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        _stub.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _stub.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
