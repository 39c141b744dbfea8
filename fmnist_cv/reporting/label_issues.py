"""Training images to review: likely label errors, near-duplicates, outliers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fmnist_cv.data import Images
from fmnist_cv.reporting.near_duplicates import NearDuplicates, find_near_duplicates
from fmnist_cv.reporting.sprites import thumbnails_of
from fmnist_cv.utils.optional import require

# In ten well-known test sets at least 3.3 % of the labels are wrong on average, 6 % in ImageNet's, and people confirmed 51 %
# of what confident learning had flagged there (Northcutt, Athalye and Mueller, "Pervasive label errors in test sets
# destabilize machine learning benchmarks", NeurIPS 2021, abstract). Where a model is wrong three times as often as labels
# usually are, most disagreements are attributed to the model; that bound is our choice.
TRUSTED_ERROR = 0.1

OUTLIER_SHARE, FEWEST_OUTLIERS = 0.001, 10

LABEL_ERROR, NEAR_DUPLICATE, OUTLIER, LEFT_OUT = "label_error", "near_duplicate", "outlier", "left_out"


Progress = Callable[[str, float], None]  # called with the current step, and the share of the work that is done


@dataclass(frozen=True)
class LabelIssues:
    """What was found; images are given by their index in the run's training images, the most suspicious first.

    Attributes:
        errors: int64 (m,), images with a likely label error.
        quality: float64 (n,), label quality: the probability given to the label; NaN if never held out.
        duplicates: groups of near-duplicates.
        outliers: int64 (m,), images that are least typical of any class.
        typicality: float64 (n,), 0 to 1; NaN if never held out.
    """

    errors: np.ndarray
    quality: np.ndarray
    duplicates: NearDuplicates
    outliers: np.ndarray
    typicality: np.ndarray

    def trust(self, accuracy: float) -> tuple[str, bool]:
        """A sentence on how reliable the model is that found the label errors, and whether it is too weak to rely on.

        Args:
            accuracy: out of fold, 0 to 1.
        """
        n = int(np.isfinite(self.quality).sum())
        wrong = f"Out of fold, the model misclassifies {100 * (1 - accuracy):.1f} % of the {n:,} images"
        listed = f"it confidently contradicts {len(self.errors):,} labels ({100 * len(self.errors) / max(n, 1):.1f} %)"
        if not len(self.errors) or 1 - accuracy <= TRUSTED_ERROR:
            return f"{wrong}; {listed}.", False
        return (
            f"{wrong}, far more than the usual share of label errors (3.3 % in ten common test sets): most of the "
            f"{len(self.errors):,} likely label errors may be mistakes of the model; improve it before relying on them."
        ), True

    def table(self, images: Images, predicted: np.ndarray, left_out: np.ndarray) -> pd.DataFrame:
        """The rows of label_issues.csv, one per finding.

        Images are given by `name`, or, where they have none, by `index`, their place in the whole data set: as `data.leave_out`
        takes them. Images that the run itself left out have rows of the kind left_out, so that a new run can leave out both. A
        group of near-duplicates has a row for each image except its first, which is given by `other`.

        Args:
            images: the run's training images.
            predicted: int64 (n,), -1 if never held out.
            left_out: int64 (k,), the images that the run left out, as indices into the whole data set.
        """
        whole = images.names if images.part_of is None else images.part_of.names
        key = "index" if whole is None else "name"
        dtype: Any = "Int64" if whole is None else object  # of a column in which some are missing
        places = images.places
        names = np.array([*images.class_names, ""], dtype=object)  # the last one is for -1
        labels = images.labels.cpu().numpy()

        def called(numbers: np.ndarray) -> np.ndarray:
            return numbers if whole is None else np.array(whole, dtype=object)[numbers]

        def rows(kind: str, found: np.ndarray, score: np.ndarray, other: np.ndarray | None = None) -> pd.DataFrame:
            return pd.DataFrame(
                {
                    key: called(places[found]),
                    "kind": kind,
                    "label": names[labels[found]],
                    "suggested": names[predicted[found]],
                    "score": score.round(6),
                    "other": pd.array([None] * len(found) if other is None else called(places[other]), dtype=dtype),
                }
            )

        duplicates = self.duplicates
        order = np.lexsort((duplicates.image, duplicates.distance))
        return pd.concat(
            [
                rows(LABEL_ERROR, self.errors, self.quality[self.errors]),
                rows(NEAR_DUPLICATE, duplicates.image[order], duplicates.distance[order], duplicates.other[order]),
                rows(OUTLIER, self.outliers, self.typicality[self.outliers]),
                pd.DataFrame({key: called(left_out), "kind": LEFT_OUT}),
            ],
            ignore_index=True,
        )


def find_label_issues(
    images: Images, probabilities: np.ndarray, progress: Progress = lambda step, share: None
) -> LabelIssues:
    """Find likely label errors, near-duplicates and outliers.

    Label errors: confident learning on out-of-fold probabilities (Northcutt, Jiang and Chuang, "Confident learning", JAIR
    70, 2021), by cleanlab with its defaults, ranked by self-confidence. Outliers: the 0.1 % of the images, at least 10,
    with the lowest of cleanlab's out-of-distribution scores (1 - entropy of the probabilities, adjusted for how confident
    the model is of each class). Near-duplicates: on pixels, among all images.

    Args:
        images: the run's training images.
        probabilities: float32 (n, n_classes), out of fold; NaN if never held out.
        progress: called with the current step, and the share that is done.

    Raises:
        UserError: cleanlab is not installed.
    """
    require("Finding label errors", "cleanlab")
    from cleanlab.filter import find_label_issues as find_label_errors
    from cleanlab.outlier import OutOfDistribution
    from cleanlab.rank import get_label_quality_scores

    progress("near-duplicates", 0)
    duplicates = find_near_duplicates(thumbnails_of(images), lambda share: progress("near-duplicates", 0.8 * share))
    progress("label errors and outliers", 0.8)
    held_out = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    labels, known = images.labels.cpu().numpy()[held_out], probabilities[held_out]
    quality, typicality = np.full((2, len(images)), np.nan)
    errors = outliers = np.empty(0, dtype=np.int64)
    if len(np.unique(labels)) > 1:  # with one class there is no other label
        with warnings.catch_warnings():  # for a class with one image, which is never flagged
            warnings.filterwarnings("ignore", "May not flag all label issues")
            ranked = find_label_errors(labels, known, return_indices_ranked_by="self_confidence", n_jobs=1)
        errors = held_out[np.asarray(ranked, dtype=np.int64)]
        quality[held_out] = get_label_quality_scores(labels, known)
        typicality[held_out] = OutOfDistribution().fit_score(pred_probs=known, labels=labels, verbose=False)
        n_outliers = max(FEWEST_OUTLIERS, round(OUTLIER_SHARE * len(held_out)))
        outliers = held_out[np.argsort(typicality[held_out], kind="stable")[:n_outliers]]
    return LabelIssues(errors, quality, duplicates, outliers, typicality)
