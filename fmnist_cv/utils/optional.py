"""Packages of an extra: needed by one command or one kind of config, and not installed with the package itself."""

from __future__ import annotations

from importlib import import_module

from fmnist_cv.errors import UserError

EXTRAS = {
    "cleanlab": "report",
    "datasets": "hf",
    "kornia": "augmentation",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "plotly": "report",
    "pyarrow": "parquet",
    "safetensors": "safetensors",
}


def how_to_install(package: str) -> str:
    """The command that installs an extra's package."""
    return f"pip install 'fmnist_cv[{EXTRAS[package]}]'"


def require(purpose: str, *packages: str) -> None:
    """Check that an extra's packages can be imported.

    Args:
        purpose: what needs them, the beginning of the error message.
        packages: names in `EXTRAS`.

    Raises:
        UserError: one is missing; the message says how to install it.
    """
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"{purpose} needs the package {package}: {how_to_install(package)}") from None
