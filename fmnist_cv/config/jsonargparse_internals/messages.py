"""The parser's error messages in a line or two: the key, the value given, what is expected, and what to write."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from importlib import import_module

from jsonargparse import ArgumentParser

from fmnist_cv.config.class_paths import is_section, keys_below, load_class, parameters
from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.config.jsonargparse_internals.lines import MISFIT, Line, read_lines
from fmnist_cv.config.jsonargparse_internals.values import NOT_SUGGESTED, either, given_value, misfit
from fmnist_cv.config.sections import DATA_WAYS, MODEL_WAYS, PART_KEYS, RESERVED_TRAINER_OPTIONS
from fmnist_cv.errors import did_you_mean
from fmnist_cv.utils.optional import EXTRAS, how_to_install
from fmnist_cv.utils.paths import shortened

OTHER_WORDS = {"epochs": "trainer.max_epochs", "folds": "cv.n_splits", "learning_rate": "model.optimizer.init_args.lr"}
LONGEST = 480  # characters of a message


def explain(error: Exception, parser: ArgumentParser) -> str:
    """The parser's error in a line or two: the key, the reason, and the nearest known key."""
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
    """Why a part could not be created, from the parser's error when it instantiates a class."""
    lines = [line for line in read_lines(str(error)) if not MISFIT.match(line.text)]
    if not lines:
        return shortened(" ".join(str(error).split()), LONGEST)
    line = lines[0]
    return shortened(f"{line.class_path}: {line.text}" if line.class_path else line.text, LONGEST)


# -- unknown keys ------------------------------------------------------------------------------------------


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
            key = f"{named['group']}.{named['word']}" if named.get("group") else named["word"]
            return unknown_key(key, known_keys(parser), parser.prog)
    return None


def _as_plain_data(given: str) -> str:
    """How a LightningDataModule that knows nothing of folds is used."""
    from lightning import LightningDataModule

    try:
        kind = load_class(given.strip("'"))
    except (ImportError, AttributeError, ValueError):
        return ""
    if not (isinstance(kind, type) and issubclass(kind, LightningDataModule)):
        return ""
    return (
        ", and its held-out images would be scored with the training's augmentation; give it as data.init_args.module of "
        "fmnist_cv.data.LightningDataModuleAdapter, with eval_dataset or eval_transform"
    )


def _unknown_argument(word: str, line: Line, parser: ArgumentParser) -> str:
    from fmnist_cv.data.module import SPLIT_ARGUMENTS

    if line.path == "data" and word in SPLIT_ARGUMENTS:
        cv = "seed" if word == "seed" else "cv.fold" if word in ("fold", "repeat") else f"cv.{word}"
        return f"data.init_args.{word} is taken from the section cv; set {cv} instead"
    if not line.class_path and not line.path:
        return unknown_key(word, known_keys(parser), parser.prog)
    known = [name for name in parameters(line.class_path) if name != word]
    hint = did_you_mean(word, known) or _elsewhere(word, [f"{line.path}.{key}" for key in keys_below(line.class_path)])
    of = f" of {line.class_path}" if line.class_path else ""
    return f"{line.path + ': ' if line.path else ''}'{word}' is not an option{of}{hint}"


def unknown_key(word: str, known: Sequence[str], prog: str) -> str:
    """The message about a dotted key that is none of the known ones; it needs neither torch nor Lightning.

    Args:
        word: the key.
        known: all keys of the command.
        prog: the command, whose help has the others.
    """
    section, _, option = word.rpartition(".")
    if section == "trainer" and option in RESERVED_TRAINER_OPTIONS:
        return f"{word} is set by the engine and cannot be given: {RESERVED_TRAINER_OPTIONS[option]}"
    # a key at the top or in a known section is compared with its neighbours, a key in a misspelt section as a whole
    neighbours = [key for key in known if key.rpartition(".")[0] == section]
    hint = did_you_mean(word, known) if section and section not in known else _near(option, neighbours, 0.6)
    if not hint and "model" in known:
        known = [*known, *PART_KEYS]
    if OTHER_WORDS.get(option) in known:
        hint = f"; did you mean '{OTHER_WORDS[option]}'?"
    hint = hint or _elsewhere(option, known) or ("" if section else _near(option, known, 0.7))
    return f"'{word}' is not an option{hint or f'; see {prog} --help'}"


def known_keys(parser: ArgumentParser) -> list[str]:
    """The keys of a parser's options, but for those that print something."""
    return [option.dest for option in private.options_of(parser) if option.dest not in ("help", "print_config")]


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
                # of a callable, such as a scheduler, only the value shows the class
                about = " ".join(other.text for other in lines if other.path == line.path)
                given = re.findall(r"class_path\W+([\w.]+)", about)
                cls = next((cls for cls in given if named in parameters(cls)), line.class_path)
                where = "" if is_section(cls) else "; give it in init_args"
                if named == "T_max":
                    where += ", or use CosineSchedule of fmnist_cv.models.schedules, which is as long as the training"
                return f"{line.path}: {cls} needs {named}{where}"
            has_config = private.find_option(parser, "--config") is not None
            way_out = "give them as options, or in a file with --config" if has_config else f"see {parser.prog} --help"
            return f"the following are required: {', '.join(sorted(match[1].split(', ')))}; {way_out}"
    return None


# -- classes ------------------------------------------------------------------------------------------------


def _made_of_schedulers(text: str) -> str | None:
    """For a scheduler that takes other schedulers, such as torch's SequentialLR."""
    for class_path in re.findall(r"class_path\W+([\w.]+)", text):
        from torch.optim.lr_scheduler import LRScheduler  # here, since most errors name no class

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
                    f"{'.init_args.'.join(keys)}: {cls.__name__} takes schedulers that are created already, which YAML cannot "
                    f"write; use fmnist_cv.models.schedules.{ours}, whose schedulers are a list of class_path and init_args"
                )
    return None


def _bad_class(lines: Sequence[Line]) -> str | None:
    """For a class that cannot be found, imported or used, and for a value that does not describe a class."""
    for line in lines:
        key, of = line.path, f"{line.path}: " if line.path else ""
        if match := re.search(r"No module named '([\w.]+)'", line.text):
            if (package := match[1].partition(".")[0]) in EXTRAS:
                return f"{of}the package {package} is not installed: {how_to_install(package)}"
            return f"{of}there is no module '{match[1]}' (modules are looked up in the working folder, too)"
        if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", line.text):
            module = import_module(match[1])
            names = {*dir(module), *getattr(module, "__all__", ())}  # those imported on first use, too
            known = sorted(name for name in names if not name.startswith("_"))
            return f"{of}module {match[1]} has no '{match[2]}'{did_you_mean(match[2], known)}"
        if match := re.search(r"Multiple subclasses with name (\w+).*ambiguity: (.*?)\.?$", line.text):
            found = match[2].split(", ")
            paths = [path for path in found if not path.startswith(NOT_SUGGESTED)] or found
            return f"{of}there are several classes {match[1]}; give the full path: {either(paths[:4])}"
        if match := re.search(
            r"Import path (\S+ )?does not correspond to a subclass of (?!\w+Section)(\w+)", line.text
        ):
            given = repr(match[1].strip()) if match[1] else given_value(lines, line)
            hint = _as_plain_data(given or "") if match[2] == "KFoldDataModule" else ""
            ways = {"KFoldDataModule": DATA_WAYS, "LightningModule": MODEL_WAYS}.get(match[2])
            return f"{of}{given or 'the class'} is not a {match[2]}{hint or (f'; {ways}' if ways else '')}"
        if re.search(r"object has no attribute 'keys'", line.text):
            return f"{of}init_args must be a mapping of keys to values"
        if re.search(r"argument of type '\w+' is not iterable", line.text):
            return f"{of}class_path must be text, the path of a class such as my_module.MyClass"
        if key and not MISFIT.match(line.text):
            return f"{of}{f'{line.class_path}: ' if line.class_path else ''}{line.text.partition('. Got value: ')[0]}"
    return None
