"""Values of the wrong type: what was given and what is allowed, in words."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from itertools import chain

from fmnist_cv.config.class_paths import imported_subclasses, load_class, public_path, type_of
from fmnist_cv.config.jsonargparse_internals.lines import Line
from fmnist_cv.config.sections import DATA_WAYS, MODEL_WAYS
from fmnist_cv.utils.paths import shortened

ARRAYS = ("ndarray", "Tensor")  # given from Python only
NOT_SUGGESTED = "torchvision.transforms"  # refused as augmentation: they are random per batch
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
_PLURALS = {"int": "whole numbers", "float": "numbers", "str": "texts"}


def misfit(lines: Sequence[Line]) -> str | None:
    """For a value that fits none of the types: the value, what is allowed, and how to write it."""
    depth = max((line.depth for line in lines), default=0)
    about = [line for line in lines if line.depth == depth and line.path]
    if not about:
        return None
    key, given = about[0].path, given_value(lines, about[0])
    types = _types([line for line in lines if line.path == key])
    if not types or given is None:
        return None
    words, bases = _described(types)
    if key in ("model", "data"):  # the parser has null for a part that is not given
        words = [word for word in words if word != "null"]
    tip = ""
    if "text" in words and re.fullmatch(r"[-+.\w]+", given):
        tip = f'; quote it, as in {key.rpartition(".")[2]}: "{given}"'
        words = ["text"]
    elif any(ast.unparse(node).rpartition(".")[2] == "ndarray" for node in types):
        tip = "; arrays are given from Python only"
    elif bases:
        ways = {"data": DATA_WAYS, "model": MODEL_WAYS}
        tip = _nearest_class(given, bases) or (
            f"; {ways[key]}"
            if key in ways
            else "; a class is written as its path, e.g. my_module.MyClass, or as class_path and init_args"
        )
    return f"{key} is {given}, but must be {either(words)}{tip}"


def given_value(lines: Sequence[Line], about: Line) -> str | None:
    """What was given for a line's key, as YAML writes it, shortened."""
    found = [line for line in lines if line.path == about.path]
    kind, value = "", None
    if whole := sorted((line for line in found if line.text.startswith("Given value: ")), key=lambda line: line.indent):
        value = whole[0].text.removeprefix("Given value: ").partition(". Got value: ")[0]
        kind = next(
            (
                m[1]
                for line in found
                if (m := re.match(r"Given value type: <class '(.*)'>", line.text)) and line.indent == whole[0].indent
            ),
            "",
        )
    else:
        patterns = (
            r"Got value: (.*)",
            r"import path (?:string|format): (.*)",
            r"Not of type \w+: (.*) is not? ",
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
    """The types that were tried, of the outermost union in the lines."""
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
    for node in chain.from_iterable(map(_members, types)):
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
                words.append(f"a mapping of names to {_plural(inside[-1])}")
            elif kind in ("tuple", "Tuple") and not any(ast.unparse(item) == "..." for item in inside):
                words.append(f"a list of {len(inside)} values")
            else:
                words.append(f"a list of {_plural(inside[0])}")
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
    unique = list(dict.fromkeys(words)) or ["an array"]
    return sorted(unique, key=lambda word: word == "null"), bases


def _members(node: ast.expr) -> list[ast.expr]:
    """The types of a union written with |, or the one type."""
    return [*_members(node.left), *_members(node.right)] if isinstance(node, ast.BinOp) else [node]


def _plural(node: ast.expr) -> str:
    words = []
    for member in _members(node):
        known = _PLURALS.get(ast.unparse(member).rpartition(".")[2])
        words += [known] if known else [re.sub("^an? ", "", word) for word in _described([member])[0]]
    return " or ".join(words)


def either(words: Sequence[str]) -> str:
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
