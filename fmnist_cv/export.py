"""`python -m fmnist_cv.export`: a run's networks as ONNX or as safetensors."""

from __future__ import annotations

import sys
from typing import get_args

from fmnist_cv.command_line import OK, CommandParser, command
from fmnist_cv.inference.choices import ExportFormat
from fmnist_cv.utils import paths
from fmnist_cv.utils.importing import heavy_imports
from fmnist_cv.utils.user_text import make_console

DESCRIPTION = """
Export the networks of a finished run, with their preprocessing: stored pixels in, probabilities out.

  python -m fmnist_cv.export lightning_logs/sharifi-cnn/2026-01-31_12-00-00 --format onnx
  python -m fmnist_cv.export RUN --format onnx --model refit --out refit/
  python -m fmnist_cv.export RUN --format safetensors --out published/

onnx         model.onnx: the input "images", (n, channels, height, width) of the data's dtype, such as uint8; the output
             "probabilities", float32 (n, classes), the mean of the folds' for the ensemble; class names in its metadata. It is checked with
             onnxruntime, which must predict the same for every test image. Needs pip install 'fmnist_cv[onnx]'
safetensors  weights.safetensors and network.json, from which fmnist_cv.load_exported(FOLDER) rebuilds the
             networks without executing code from the files
"""


@command(if_interrupted="nothing was written")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 2 for a user error, 130 for Ctrl-C."""
    options = make_parser().parse(arguments)

    with heavy_imports():  # here, since --help and wrong options need no torch
        from fmnist_cv.inference import export_run
        from fmnist_cv.runtime import prepare_process

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
    for line in findings:
        print(line)
    for file in files:
        print(f"{file}  ({file.stat().st_size / 1e6:.1f} MB)")
    return OK


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser("export", DESCRIPTION)
    parser.add_run()
    parser.add_argument("--format", choices=get_args(ExportFormat), required=True, help="what to write, see above")
    parser.add_model()
    parser.add_argument(
        "--out",
        type=paths.argument,
        metavar="FOLDER",
        help="where the files go (default: exports/<model> in the run's folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--check_on",
        metavar="DATA",
        help="check the ONNX file on these images, named as for --data of fmnist_cv.evaluate (default: "
        "the run's test images or, without any, its training images)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
