"""What the parser complains of, in a line or two: the key, what it was given, what is expected, and what to write.

jsonargparse describes a mismatch by a tree of all the types that it tried, one below the other. A complaint is read here
as lines with their place: the keys and classes above them, by indentation.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from importlib import import_module

from jsonargparse import ArgumentParser
from torch.optim.lr_scheduler import LRScheduler

from fmnist_cv.class_paths import imported_subclasses, keys_below, load_class, parameters, public_path, type_of
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.errors import did_you_mean
from fmnist_cv.paths import shortened

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
ARRAYS = ("ndarray", "Tensor")  # given from Python only
NOT_SUGGESTED = "torchvision.transforms"  # refused as augmentation, since they draw once per batch
LONGEST = 480  # characters of a message
# Lines that say only that one of several types does not fit; others have a reason.
_MISFIT = re.compile(
    r"Expected |Not a valid subclass|Not of type|Subclasses are disabled|Unexpected import|Subclass types expect|a class path \(str\)|a dict with|Does not "
    r"validate|Import path does|Subtypes:|Errors:|Given value|Problem with given|Unable to load config|$"
)
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
_PLURALS = {"int": "whole numbers", "float": "numbers", "str": "texts"}


@dataclass(frozen=True)
class Line:
    """One line of a complaint and its place.

    Attributes:
        text: the line without what names its place.
        indent: characters before the text.
        path: the dotted key that it is about; "" at the top.
        depth: how many keys the path was named by.
        class_path: the class whose arguments it is about; "" for none.
    """

    text: str
    indent: int
    path: str
    depth: int
    class_path: str


def explain(error: Exception, parser: ArgumentParser) -> str:
    """The parser's complaint in a line or two: the key, the reason, and the nearest right key."""
    text = str(error)
    lines = list(_lines(text))
    message = (
        _made_of_schedulers(text)
        or _unknown_option(lines, parser)
        or _missing(lines, parser)
        or _bad_class(lines)
        or _misfit(lines)
        or " ".join(text.split())
    )
    return shortened(message, LONGEST)


def reason_of_build(error: Exception) -> str:
    """Why a part could not be made, out of what the parser says of it when it instantiates a class."""
    lines = [line for line in _lines(str(error)) if not _MISFIT.match(line.text)]
    if not lines:
        return shortened(" ".join(str(error).split()), LONGEST)
    line = lines[0]
    return shortened(f"{line.class_path}: {line.text}" if line.class_path else line.text, LONGEST)


# -- reading a complaint ------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[Line]:
    above: list[tuple[int, str, str]] = []  # indentation, and a key or a class
    for raw in filter(str.strip, text.splitlines()):
        bare = raw.lstrip()
        indent = len(raw) - len(bare)
        content = re.sub(r"^(- )?(Type .* expects a function or a callable class: )?", "", bare)
        named = re.findall(r"""[Kk]ey "([\w.]+)"|class_path '([\w.]+)':""", content)
        is_sibling = bare.startswith("- ") or bool(named)
        while above and (above[-1][0] > indent or (above[-1][0] == indent and is_sibling)):
            above.pop()
        above += [(indent, key, class_path) for key, class_path in named]
        path, class_path, depth = "", "", 0
        for _, key, cls in above:
            if cls:
                class_path = cls
                continue
            whole = f"{key}.".startswith(f"{path}.")  # a section's key is named in full
            path = key if whole or not path else f"{path}.{'' if _is_dataclass(class_path) else 'init_args.'}{key}"
            depth += 1
        if inner := re.search(r"Got value: Namespace\(class_path='([\w.]+)'", content):
            class_path = inner[1]  # one of a list, and not the last one
        yield Line(
            re.sub(r"""^.*?([Kk]ey "[\w.]+"|class_path '[\w.]+'):\s*""", "", content), indent, path, depth, class_path
        )


def _is_dataclass(class_path: str) -> bool:
    try:
        return is_dataclass(load_class(class_path))
    except (ImportError, AttributeError, ValueError):
        return False


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
                where = "" if _is_dataclass(cls) else "; give it in init_args"
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
            return f"{of}there is no module '{match[1]}' (modules are looked up in the working folder, too)"
        if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", line.text):
            known = [name for name in dir(import_module(match[1])) if not name.startswith("_")]
            return f"{of}module {match[1]} has no '{match[2]}'{did_you_mean(match[2], known)}"
        if match := re.search(r"Multiple subclasses with name (\w+).*ambiguity: (.*?)\.?$", line.text):
            paths = [path for path in match[2].split(", ") if not path.startswith(NOT_SUGGESTED)] or match[2].split(
                ", "
            )
            return f"{of}there are several classes {match[1]}; give the full path: {_either(paths[:4])}"
        if match := re.search(
            r"Import path (\S+ )?does not correspond to a subclass of (?!\w+Section)(\w+)", line.text
        ):
            given = repr(match[1].strip()) if match[1] else _value(lines, line)
            return f"{of}{given or 'the class'} is no {match[2]}"
        if re.search(r"object has no attribute 'keys'", line.text):
            return f"{of}init_args must be a mapping of keys to values"
        if re.search(r"argument of type '\w+' is not iterable", line.text):
            return f"{of}class_path must be text, the path of a class such as my_module.MyClass"
        if key and not _MISFIT.match(line.text):
            return f"{of}{f'{line.class_path}: ' if line.class_path else ''}{line.text.partition('. Got value: ')[0]}"
    return None


# -- values of another type ---------------------------------------------------------------------------------


def _misfit(lines: Sequence[Line]) -> str | None:
    """For a value that none of the types fits: what it is, what it may be, and how to write that."""
    depth = max((line.depth for line in lines), default=0)
    about = [line for line in lines if line.depth == depth and line.path]
    if not about:
        return None
    key, given = about[0].path, _value(lines, about[0])
    types = _types([line for line in lines if line.path == key])
    if not types or given is None:
        return None
    words, bases = _described(types)
    if key in ("model", "data"):
        words.remove("null")  # the parser's word for what is not given at all
    tip = ""
    if "text" in words and re.fullmatch(r"[-+.\w]+", given):
        tip = f'; quote it, as in {key.rpartition(".")[2]}: "{given}"'
        words = ["text"]
    elif any(ast.unparse(node).rpartition(".")[2] == "ndarray" for node in types):
        tip = "; arrays are given from Python only"
    elif bases:
        tip = _nearest_class(given, bases) or (
            "; a class is written as its path, e.g. my_module.MyClass, or as class_path and init_args"
        )
    return f"{key} is {given}, but must be {_either(words)}{tip}"


def _value(lines: Sequence[Line], about: Line) -> str | None:
    """What was given for a line's key, as YAML has it and not at length."""
    found = [line for line in lines if line.path == about.path]
    kind, value = "", None
    if whole := sorted((line for line in found if line.text.startswith("Given value: ")), key=lambda line: line.indent):
        value = whole[0].text.removeprefix("Given value: ").partition(". Got value: ")[0]
        kind = next((m[1] for line in found if (m := re.match(r"Given value type: <class '(.*)'>", line.text))
                     and line.indent == whole[0].indent), "")  # fmt: skip
    else:
        patterns = (
            r"Got value: (.*)",
            r"import path (?:string|format): (.*)",
            r"Not of type \w+: (.*) is no ",
            r"thus ('.*') is not accepted as",
            r"Unable to load config '(.*)'",
        )
        value = next((m[1] for line in found for pattern in patterns if (m := re.search(pattern, line.text))), None)
    if value is None:
        return None
    if nested := re.match(r"NestedArg\(key='[^']*', val=(.*)\)$", value):
        value = nested[1]
    if quoted := re.fullmatch(r"""(['"])(.*)\1""", value):
        kind, value = "str", quoted[2]
    if "Namespace(" in value:
        paths = re.findall(r"class_path='([\w.]+)'", value)
        value = f"[{', '.join(paths)}]" if value.startswith("[") else paths[0] if paths else "a mapping"
    elif kind == "str" or not re.match(r"""[-+\d.\['"{(]|(True|False|None)$""", value):
        return repr(shortened(value))
    return {"True": "true", "False": "false", "None": "null"}.get(value, shortened(value))


def _types(lines: Sequence[Line]) -> list[ast.expr]:
    """The types that were tried, of the outermost union that the lines tell."""
    unions = sorted((line for line in lines if line.text.startswith("Subtypes: ")), key=lambda line: line.indent)
    single = r"Expected an? (?!path|dot|import)(.*?)(?:\. Got value|$)", r"(?:subclass of|Not of type) (\w+)"
    found = [match[1] for pattern in single for line in lines if (match := re.match(f".*?{pattern}", line.text))]
    about = next((line for line in lines if " import " in line.text), None)
    if unions:
        text = unions[0].text.removeprefix("Subtypes: ")
    elif found:
        size = re.match(r"tuple with (\d+) elements", found[0])
        text = f"[tuple[{'int, ' * int(size[1])}]]" if size else f"[{found[0]}]"
    elif about:
        text = f"[{type_of(about.class_path, about.path.rpartition('.')[2]) or 'Class'}]"
    else:
        text = "[Section]"
    try:
        parsed = ast.parse(re.sub(r"<class '([\w.]+)'>", r"\1", text), mode="eval").body
    except SyntaxError:
        return []
    return parsed.elts if isinstance(parsed, ast.List) else []


def _described(types: Sequence[ast.expr]) -> tuple[list[str], list[str]]:
    """Words for types, null last, and the paths of the classes among them."""
    words: list[str] = []
    bases: list[str] = []
    for node in types:
        if isinstance(node, ast.Subscript):
            kind = ast.unparse(node.value).rpartition(".")[2]
            inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if kind == "Literal":
                words += [str(item.value) for item in inside if isinstance(item, ast.Constant)]
                continue
            if kind == "Callable":
                inside = inside[-1:]
            inner, classes = _described(inside)
            bases += classes
            if kind in ("Union", "Optional", "Callable"):
                words += inner
            elif kind in ("dict", "Dict", "Mapping"):
                words.append(f"a mapping of names to {_plural(inside[-1], inner)}")
            elif kind in ("tuple", "Tuple") and not any(ast.unparse(item) == "..." for item in inside):
                words.append(f"a list of {len(inside)} values")
            else:
                words.append(f"a list of {_plural(inside[0], inner)}")
            continue
        path = ast.unparse(node)
        name = path.rpartition(".")[2]
        if name in ("list", "tuple", "set", "Iterable", "Sequence"):
            words.append("a list")
        elif name in ("dict", "Tree") or name.endswith("Section"):
            words.append("a mapping of keys to values")
        elif name in _WORDS:
            words.append(_WORDS[name])
        elif name in ARRAYS and len(types) > 1:
            continue
        else:
            bases.append(path)
            words.append(
                f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" if name not in ("Class", "Callable") else "a class"
            )
    unique = list(dict.fromkeys(words))
    return sorted(unique, key=lambda word: word == "null"), bases


def _plural(node: ast.expr, words: Sequence[str]) -> str:
    return _PLURALS.get(ast.unparse(node).rpartition(".")[2]) or " or ".join(
        re.sub("^an? ", "", word) for word in words
    )


def _either(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)}{',' if len(others) > 1 else ''} or {last}" if others else last


def _nearest_class(given: str, bases: Sequence[str]) -> str:
    known: dict[str, str] = {}
    for base in bases:
        try:
            classes = imported_subclasses(load_class(base))
            known |= {cls.__name__: public_path(cls) for cls in classes if not cls.__module__.startswith(NOT_SUGGESTED)}
        except (ImportError, AttributeError, ValueError, TypeError):
            continue
    for word in re.findall(r"\w+", given):
        if near := difflib.get_close_matches(word, known, n=1, cutoff=0.7):
            return f"; did you mean '{known[near[0]]}'?"
    return ""
