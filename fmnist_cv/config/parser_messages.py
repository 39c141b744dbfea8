"""What the parser complains of, in a line or two: the key, what it was given, what is expected, and what to write."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from importlib import import_module

from jsonargparse import ArgumentParser
from torch.optim.lr_scheduler import LRScheduler

from fmnist_cv.config.class_paths import is_section, keys_below, load_class, parameters
from fmnist_cv.config.parser_lines import MISFIT, Line, read_lines
from fmnist_cv.config.parser_values import NOT_SUGGESTED, either, given_value, misfit
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.errors import did_you_mean
from fmnist_cv.utils.optional import EXTRAS, how_to_install
from fmnist_cv.utils.paths import shortened

# Trainer options that the engine sets itself, and why; giving one is refused instead of ignored.
RESERVED_TRAINER_OPTIONS = {
    "barebones": "a fold needs its callbacks and logger",
    "default_root_dir": "runs are written under --log_dir",
    "enable_checkpointing": "each fold keeps its last and best checkpoint; add a ModelCheckpoint callback for more",
    "enable_model_summary": "the model is described once for all folds",
    "enable_progress_bar": "one display shows all folds",
    "fast_dev_run": "it would leave no results; use --trainer.max_epochs 1 --trainer.limit_train_batches 2",
    "limit_predict_batches": "every held-out image must be scored",
    "limit_test_batches": "every test image must be scored",
    "num_nodes": "spread folds over machines with --cv.fold",
    "num_sanity_val_steps": "the engine scores the validation images itself",
    "overfit_batches": "it replaces the index batches' shuffling; use --trainer.limit_train_batches",
    "strategy": "each fold runs on one device",
    "use_distributed_sampler": "each fold runs on one device",
    "sync_batchnorm": "each fold runs on one device",
}

OTHER_WORDS = {"epochs": "trainer.max_epochs", "folds": "cv.n_splits", "learning_rate": "model.optimizer.init_args.lr"}
LONGEST = 480  # characters of a message


def explain(error: Exception, parser: ArgumentParser) -> str:
    """The parser's complaint in a line or two: the key, the reason, and the nearest right key."""
    text = str(error)
    lines = list(read_lines(text))
    message = (
        _made_of_schedulers(text)
        or _unknown_option(lines, parser)
        or _missing(lines, parser)
        or _bad_class(lines)
        or misfit(lines)
        or " ".join(text.split())
    )
    return shortened(message, LONGEST)


def reason_of_build(error: Exception) -> str:
    """Why a part could not be made, out of what the parser says of it when it instantiates a class."""
    lines = [line for line in read_lines(str(error)) if not MISFIT.match(line.text)]
    if not lines:
        return shortened(" ".join(str(error).split()), LONGEST)
    line = lines[0]
    return shortened(f"{line.class_path}: {line.text}" if line.class_path else line.text, LONGEST)


# -- keys that there are not --------------------------------------------------------------------------------


def _unknown_option(lines: Sequence[Line], parser: ArgumentParser) -> str | None:
    for line in lines:
        if match := re.search(r"[Oo]ption '([\w.]+)' is not accepted", line.text):
            return _unknown_argument(match[1], line, parser)
        if match := (
            re.search(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<word>[\w.]+)'", line.text)
            or re.search(r"[Kk]ey '(?P<word>[\w.]+)' is not expected", line.text)
            or re.search(r"[Uu]nrecognized arguments: (?P<dashes>-*)(?P<word>[^\s=]*)", line.text)
        ):
            named = match.groupdict()
            if named.get("dashes") == "":
                return f"'{named['word']}' is not an option; an option begins with --, and takes one value"
            return _unknown_key(f"{named['group']}.{named['word']}" if named.get("group") else named["word"], parser)
    return None


def _unknown_argument(word: str, line: Line, parser: ArgumentParser) -> str:
    if line.path == "data" and word in SPLIT_ARGUMENTS:
        cv = "seed" if word == "seed" else "cv.fold" if word in ("fold", "repeat") else f"cv.{word}"
        return f"data.init_args.{word} is taken from the section cv; set {cv} instead"
    if not line.class_path and not line.path:
        return _unknown_key(word, parser)
    known = [name for name in parameters(line.class_path) if name != word]
    hint = did_you_mean(word, known) or _elsewhere(word, [f"{line.path}.{key}" for key in keys_below(line.class_path)])
    of = f" of {line.class_path}" if line.class_path else ""
    return f"{line.path + ': ' if line.path else ''}'{word}' is not an option{of}{hint}"


def _unknown_key(word: str, parser: ArgumentParser) -> str:
    section, _, option = word.rpartition(".")
    if section == "trainer" and option in RESERVED_TRAINER_OPTIONS:
        return f"{word} is set by the engine and cannot be given: {RESERVED_TRAINER_OPTIONS[option]}"
    known = [action.dest for action in parser._actions if action.dest not in ("help", "print_config")]
    # a key of a section that there is, or of none, is compared with its likes; of a misspelt section, as a whole
    likes = [key for key in known if key.rpartition(".")[0] == section]
    hint = did_you_mean(word, known) if section and section not in known else _near(option, likes, 0.6)
    if not hint and "model" in known:
        known += [f"model.{key}" for key in keys_below("fmnist_cv.models.ImageClassifier")]
        known += [f"data.{key}" for key in keys_below("fmnist_cv.data.ArrayDataModule") if key not in SPLIT_ARGUMENTS]
    if option in OTHER_WORDS and OTHER_WORDS[option] in known:
        hint = f"; did you mean '{OTHER_WORDS[option]}'?"
    hint = hint or _elsewhere(option, known) or ("" if section else _near(option, known, 0.7))
    return f"'{word}' is not an option{hint or f'; see {parser.prog} --help'}"


def _near(option: str, keys: Sequence[str], cutoff: float) -> str:
    by_name = {key.rpartition(".")[2]: key for key in sorted(keys, key=len, reverse=True)}
    near = difflib.get_close_matches(option, by_name, n=1, cutoff=cutoff)
    return f"; did you mean '{by_name[near[0]]}'?" if near else ""


def _elsewhere(option: str, keys: Sequence[str]) -> str:
    same = sorted((key for key in keys if key.rpartition(".")[2] == option), key=len)
    return f"; did you mean '{same[0]}'?" if same else ""


def _missing(lines: Sequence[Line], parser: ArgumentParser) -> str | None:
    for line in lines:
        if match := re.search(r"the following arguments are required: (.*)", line.text):
            if line.class_path:
                named = match[1].partition(". Got value: ")[0]
                # of a callable, such as a scheduler, only the value tells the class
                about = " ".join(other.text for other in lines if other.path == line.path)
                given = re.findall(r"class_path\W+([\w.]+)", about)
                cls = next((cls for cls in given if named in parameters(cls)), line.class_path)
                where = "" if is_section(cls) else "; give it in init_args"
                if named == "T_max":
                    where += ", or use CosineSchedule of fmnist_cv.models.schedules, which is as long as the training"
                return f"{line.path}: {cls} needs {named}{where}"
            has_config = "--config" in parser._option_string_actions
            way_out = "give them as options, or in a file with --config" if has_config else f"see {parser.prog} --help"
            return f"the following are required: {', '.join(sorted(match[1].split(', ')))}; {way_out}"
    return None


# -- classes ------------------------------------------------------------------------------------------------


def _made_of_schedulers(text: str) -> str | None:
    """For a scheduler that is made of other schedulers, such as torch's SequentialLR."""
    for class_path in re.findall(r"class_path\W+([\w.]+)", text):
        try:
            cls = load_class(class_path)
        except (ImportError, AttributeError, ValueError):
            continue
        if inspect.isclass(cls) and issubclass(cls, LRScheduler):
            kinds = [str(p.annotation) for p in inspect.signature(cls).parameters.values()]
            if any("LRScheduler" in kind and "Callable" not in kind for kind in kinds):
                keys = [key for key in re.findall(r'key "([\w.]+)"', text) if key != "schedulers"]
                ours = f"{'Chained' if 'Chained' in cls.__name__ else 'Sequential'}Schedule"
                return (
                    f"{'.init_args.'.join(keys)}: {cls.__name__} takes schedulers that are made already, which YAML cannot "
                    f"write; use fmnist_cv.models.schedules.{ours}, whose schedulers are a list of class_path and init_args"
                )
    return None


def _bad_class(lines: Sequence[Line]) -> str | None:
    """For a class that cannot be found, imported or taken, and for what is no description of one."""
    for line in lines:
        key, of = line.path, f"{line.path}: " if line.path else ""
        if match := re.search(r"No module named '([\w.]+)'", line.text):
            if (package := match[1].partition(".")[0]) in EXTRAS:
                return f"{of}the package {package} is not installed: {how_to_install(package)}"
            return f"{of}there is no module '{match[1]}' (modules are looked up in the working folder, too)"
        if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", line.text):
            known = [name for name in dir(import_module(match[1])) if not name.startswith("_")]
            return f"{of}module {match[1]} has no '{match[2]}'{did_you_mean(match[2], known)}"
        if match := re.search(r"Multiple subclasses with name (\w+).*ambiguity: (.*?)\.?$", line.text):
            paths = [path for path in match[2].split(", ") if not path.startswith(NOT_SUGGESTED)] or match[2].split(
                ", "
            )
            return f"{of}there are several classes {match[1]}; give the full path: {either(paths[:4])}"
        if match := re.search(
            r"Import path (\S+ )?does not correspond to a subclass of (?!\w+Section)(\w+)", line.text
        ):
            given = repr(match[1].strip()) if match[1] else given_value(lines, line)
            return f"{of}{given or 'the class'} is no {match[2]}"
        if re.search(r"object has no attribute 'keys'", line.text):
            return f"{of}init_args must be a mapping of keys to values"
        if re.search(r"argument of type '\w+' is not iterable", line.text):
            return f"{of}class_path must be text, the path of a class such as my_module.MyClass"
        if key and not MISFIT.match(line.text):
            return f"{of}{f'{line.class_path}: ' if line.class_path else ''}{line.text.partition('. Got value: ')[0]}"
    return None
