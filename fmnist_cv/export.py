"""`python -m fmnist_cv.export`: a run's networks as ONNX or as safetensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from fmnist_cv.errors import UserError
from fmnist_cv.fit import INTERRUPTED, OK, USER_ERROR
from fmnist_cv.inference.choices import ModelChoice
from fmnist_cv.inference.export import export_run
from fmnist_cv.runtime import prepare_process
from fmnist_cv.utils import paths
from fmnist_cv.utils.streams import works_without_output
from fmnist_cv.utils.user_text import make_console

DESCRIPTION = """
Write the networks of a finished run for use elsewhere, with their preprocessing: uint8 images in, probabilities out.

  python -m fmnist_cv.export lightning_logs/sharifi-cnn/2026-01-31_12-00-00 --format onnx
  python -m fmnist_cv.export RUN --format onnx --model refit --out refit/
  python -m fmnist_cv.export RUN --format safetensors --out published/

onnx         model.onnx: the input "images", uint8 (n, channels, height, width), the output "probabilities", float32
             (n, classes), the mean of the folds' for the ensemble; class names in its metadata. It is checked with
             onnxruntime, which must predict the same for every test image. Needs pip install 'fmnist_cv[onnx]'
safetensors  weights.safetensors and network.json, from which fmnist_cv.load_exported(FOLDER) makes the networks
             again, without executing anything from the files
"""


@works_without_output
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        prepare_process()
        files, findings = export_run(
            options.run,
            options.format,
            options.model,
            options.out,
            check_on=options.check_on,
            overwrite=options.overwrite,
            console=make_console(stderr=True),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    for line in findings:
        print(line)
    for file in files:
        print(f"{file}  ({file.stat().st_size / 1e6:.1f} MB)")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_cv.export",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=paths.argument, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--format", choices=("onnx", "safetensors"), required=True)
    parser.add_argument(
        "--model",
        choices=get_args(ModelChoice),
        default="ensemble",
        help="the folds' networks, the best fold's alone, or the refit (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=paths.argument,
        metavar="FOLDER",
        help="where the files go (default: exports/<model> in the run's folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--check_on",
        metavar="DATA",
        help="check the ONNX file on these images, named as for --data of fmnist_cv.evaluate (default: "
        "the run's test images, of a run without any its training images)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
