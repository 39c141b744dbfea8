"""Makes README.md from steps.json and own.json beside this file.

python -m experiments.products.page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

INTRODUCTION = """# Product photos

Made by `python -m experiments.products.page` from what `run.py` wrote. Fashion Product Images (Small), recoded to
Fashion-MNIST's classes by the scheme of Sharifi, Hannesdottir and Dan, section 4.4
([recoding.yaml](recoding.yaml)). A third of the images are T-shirts, and the scheme calls heels ankle boots, so
accuracy alone deceives: balanced accuracy is the mean of the classes' recalls. All figures in %."""


def main() -> None:
    (HERE / "README.md").write_text(page(HERE), encoding="utf-8")


def page(folder: Path) -> str:
    """The page's text, from the files in a folder."""
    found, other = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("steps.json", "other_draw.json")
    )
    parts = [INTRODUCTION, *steps(found, other)]
    if (path := folder / "own.json").exists():
        parts += own(json.loads(path.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def steps(found: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What each step adds, on the images that chose it and on the others."""
    first, last = found["steps"][0], found["steps"][-1]
    environment = last["environment"]
    commits = dict.fromkeys(step["environment"]["commit"][:12] for step in found["steps"])
    worn = next(step for step in other["steps"] if step["step"] == "worn")
    lines = [
        "| step | what is new | development: accuracy | balanced | macro F1 | others: accuracy | balanced | macro F1 | "
        "Fashion-MNIST, out of fold |",
        "|---|---|" + "---:|" * 7,
        f"| majority | everything is a {found['majority_class']} | {cells(found['majority'])} | "
        f"{cells(found.get('majority_rest'))} | |",
    ]
    for step in found["steps"]:
        name = f"**{step['step']}**" if step["step"] == found["chosen"] else step["step"]
        lines.append(
            f"| {name} | {step['what']} | {cells(step['development'])} | {cells(step.get('rest'))} | "
            f"{100 * step['fashion_mnist']['mean']:.2f} |"
        )
    chosen = next(step for step in found["steps"] if step["step"] == found["chosen"])
    recalls = ["| | " + " | ".join(found["class_names"]) + " |", "|---|" + "---:|" * len(found["class_names"])]
    for step in (first, chosen):
        if "rest" in step:
            recalls.append(f"| {step['step']} | " + " | ".join(f"{100 * r:.0f}" for r in step["rest"]["recall"]) + " |")
    return [
        "## Trained on Fashion-MNIST alone",
        f"Soft vote of three folds' networks per step. Steps were chosen on {found['n_development']:,} images (`part: "
        f"development`, seed {found['seed']}); the other {found.get('n_rest', 0):,} were scored once, after the last "
        f"choice. Their products are none of the development images', "
        "by name. Before this split was settled, the steps but *longer* and *both ways* had been scored once on another draw "
        "of 1,000, products of one name together, some of which are among the others ([other_draw.json](other_draw.json)): worn had "
        f"{100 * worn['development']['accuracy']:.1f} % there, which is why more epochs were tried. The one in bold was chosen; steps add to the one before them, but for *moved*, which starts from *worn*. "
        f"{environment['device']}, trained at commits {', '.join(commits)}.",
        "\n".join(lines),
        "Recall of each class on the other images:",
        "\n".join(recalls),
    ]


def own(found: dict[str, Any]) -> list[str]:
    """The product images as a data set of their own."""
    lines = [
        "| | accuracy of the folds | corrected 95 % interval | balanced | macro F1 |",
        "|---|---:|---:|---:|---:|",
        f"| majority | {100 * found['majority']['accuracy']:.2f} | | {100 * found['majority']['balanced_accuracy']:.2f} | "
        f"{100 * found['majority']['macro_f1']:.2f} |",
    ]
    for arm, name in (("scratch", "from fresh weights"), ("fine_tuned", "from a network trained on Fashion-MNIST")):
        accuracy, pooled = found["arms"][arm]["accuracy"], found["arms"][arm]["out_of_fold"]
        lines.append(
            f"| {name} | {100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} | {100 * accuracy['low']:.2f} to "
            f"{100 * accuracy['high']:.2f} | {100 * pooled['balanced_accuracy']:.2f} | {100 * pooled['macro_f1']:.2f} |"
        )
    test, environment = found["fine_tuned_against_scratch"], found["environment"]
    return [
        "## As a data set of their own",
        f"Five folds of the {found['n']:,} images, products of one name on one side of each split; the account's network, "
        f"[product-images.yaml](product-images.yaml). {environment['device']}, trained at commits "
        f"{', '.join(dict.fromkeys(arm['commit'][:12] for arm in found['arms'].values()))}.",
        "\n".join(lines),
        f"Fine-tuned against fresh: {100 * test['difference']:+.2f} points, corrected 95 % interval "
        f"{100 * test['low']:+.2f} to {100 * test['high']:+.2f}, p = {test['p']:.2g}.",
    ]


def summary(folder: Path) -> str:
    """What the documentation states about these photos."""
    found, alone = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("steps.json", "own.json"))
    first = found["steps"][0]["rest"]
    chosen = next(step for step in found["steps"] if step["step"] == found["chosen"])["rest"]
    arms = {arm: alone["arms"][arm]["accuracy"] for arm in ("scratch", "fine_tuned")}
    return (
        f"On {found['n_rest']:,} photos that no choice has seen, networks trained on Fashion-MNIST alone reach an accuracy of "
        f"{100 * chosen['accuracy']:.1f} %, a balanced accuracy of {100 * chosen['balanced_accuracy']:.1f} % and a macro F1 of "
        f"{100 * chosen['macro_f1']:.1f} %. The paper's network and preprocessing, done correctly, reach "
        f"{100 * first['accuracy']:.1f}, {100 * first['balanced_accuracy']:.1f} and {100 * first['macro_f1']:.1f} % (the paper "
        f"reports 11 %), and predicting {found['majority_class']} for everything "
        f"{100 * found['majority_rest']['accuracy']:.1f}, {100 * found['majority_rest']['balanced_accuracy']:.1f} and "
        f"{100 * found['majority_rest']['macro_f1']:.1f} %. Cross-validated on the photos themselves, the paper's network "
        f"reaches {100 * arms['scratch']['mean']:.2f} ± {100 * arms['scratch']['sd']:.2f} %, fine-tuned from Fashion-MNIST "
        f"{100 * arms['fine_tuned']['mean']:.2f} ± {100 * arms['fine_tuned']['sd']:.2f} %."
    )


def cells(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return " | | "
    return " | ".join(f"{100 * scores[name]:.1f}" for name in ("accuracy", "balanced_accuracy", "macro_f1"))


if __name__ == "__main__":
    main()
