"""The contract of evaluation.json, and the same as tables and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from fmnist_cv.analysis.summary import Interval
from fmnist_cv.analysis.tables import markdown, percent, report_lines
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.environment import Environment
from fmnist_cv.engine.run_folder import replace_file, write_json
from fmnist_cv.engine.run_records import Epoch
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import DataPart, ModelChoice
from fmnist_cv.utils.user_text import for_markdown

if TYPE_CHECKING:
    from fmnist_cv.engine.scoring import ClassificationReport

FORMAT = 1
SAME = 1e-4  # probabilities that differ by less are taken as equal: another order of float32 sums changes less


class ModelScores(TypedDict):
    """One model's scores, or the ensemble's; `wilson` is the accuracy's 95 % interval."""

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    nll: NotRequired[float]
    brier: NotRequired[float]
    calibration_error: NotRequired[float]
    wilson: Interval


class Baseline(ModelScores):
    """Scores of predicting the most frequent class, `always`, for each image."""

    always: str


class Reproduction(TypedDict):
    """The run's own test predictions, made after its training, against the present ones; per model where a list."""

    largest_difference_of_a_probability: float
    other_answers: int
    accuracies_then: list[float]
    accuracies_now: list[float]
    precision: str
    device: str


class Evaluation(TypedDict):
    """What evaluation.json holds.

    `voted` names the scored model of `report`: "ensemble", or the single one. `against_the_run` is None for other images
    than the run's test set. `seen_in_training` counts images that the run was trained on; None if that is unknown.
    """

    format: int
    experiment: str
    run: str
    data: str
    part: DataPart
    fingerprint: str
    model: ModelChoice
    n: int
    epoch: Epoch
    scores: dict[str, ModelScores]
    baseline: Baseline
    voted: str
    report: ClassificationReport
    against_the_run: Reproduction | None
    seen_in_training: int | None
    environment: Environment


SCORE_COLUMNS = (
    "model",
    "accuracy",
    "95 % confidence interval",
    "balanced accuracy",
    "macro F1",
    "NLL",
    "calibration error",
)


def score_rows(evaluation: Evaluation) -> list[list[str]]:
    """A row for each model, the ensemble, and the baseline; accuracies in percent."""
    baseline = evaluation["baseline"]
    named: list[tuple[str, ModelScores]] = [*evaluation["scores"].items(), (f"always {baseline['always']}", baseline)]
    rows = []
    for name, scores in named:
        low, high = scores["wilson"]
        further = (scores["macro_f1"], scores.get("nll"), scores.get("calibration_error"))
        rows.append(
            [
                name,
                percent(scores["accuracy"]),
                f"{percent(low)} to {percent(high)}",
                percent(scores["balanced_accuracy"]),
                *("" if score is None else f"{score:.4f}" for score in further),
            ]
        )
    return rows


def sentences(evaluation: Evaluation) -> list[str]:
    """Warnings, and whether the run's own test scores are reproduced."""
    lines = synthetic_warning(evaluation["data"])
    if evaluation["seen_in_training"] is None:
        lines.append("Could not check whether some of these images were trained on: the run's own images are missing.")
    elif n := evaluation["seen_in_training"]:
        lines.append(
            f"{n:,} of these {evaluation['n']:,} images are also among the run's training images, pixel by pixel: "
            "their scores are optimistically biased."
        )
    if own := evaluation["against_the_run"]:
        lines.append(_reproduction(own))
    return lines


def _reproduction(own: Reproduction) -> str:
    difference = own["largest_difference_of_a_probability"]
    if not own["other_answers"] and difference < SAME:
        return f"The run's own test scores are reproduced: equal predictions, probabilities within {difference:.0e}."
    then, now = (", ".join(map(percent, accuracies)) for accuracies in (own["accuracies_then"], own["accuracies_now"]))
    return (
        f"The run's own test scores are not reproduced: {own['other_answers']} predictions differ, probabilities by up to "
        f"{difference:.2g}; accuracies {now}, in results.json {then} (made on {own['device']}, {own['precision']})."
    )


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write evaluation.md and evaluation.json.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = _markdown(evaluation)
        replace_file(folder / "evaluation.md", lambda file: file.write(text.encode()))
        write_json(folder / "evaluation.json", evaluation)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from None


def _markdown(evaluation: Evaluation) -> str:
    title = f"{evaluation['experiment']} / {evaluation['run']} on {evaluation['data']}, {evaluation['part']} images"
    environment = evaluation["environment"]
    facts = [
        f"Epoch: {evaluation['epoch']}",
        for_markdown(environment["device"]),
        f"precision {environment['precision']}",
        ", ".join(f"{name} {number}" for name, number in environment["versions"].items()),
        f"fingerprint of the images {evaluation['fingerprint']}.",
    ]
    lines = [
        f"# {for_markdown(title)}",
        "",
        *(f"- {for_markdown(line)}" for line in sentences(evaluation)),
        "",
        *markdown(SCORE_COLUMNS, score_rows(evaluation)),
        "",
        f"## {evaluation['voted']}",
        "",
        *report_lines(evaluation["report"]),
        "; ".join(facts),
        "",
    ]
    return "\n".join(lines)
