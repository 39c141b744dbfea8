"""Classes by the dotted paths that configs name them with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from fmnist_cv.config.jsonargparse_internals import private


def load_class(class_path: str) -> Any:
    """The class that a dotted path names."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def made_by(class_path: str) -> Any:
    """What a dotted path makes: the class itself, or what a function's annotation says it returns (None if it does not)."""
    found = load_class(class_path)
    if isinstance(found, type):
        return found
    try:
        returned = get_type_hints(found).get("return")
    except Exception:  # no function, or names that only a type checker resolves
        returned = None
    return returned if isinstance(returned, type) else None


def parameters(class_path: str) -> dict[str, Any]:
    """A class's parameters and, since `**kwargs` pass them on, its bases', with their defaults (`inspect` has `empty`)."""
    try:
        cls = load_class(class_path)
    except (ImportError, AttributeError, ValueError):
        return {}
    if not isinstance(cls, type):  # a function that makes an object
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()} if callable(cls) else {}
    makers = [vars(c)["__init__"] for c in reversed(inspect.getmro(cls)) if "__init__" in vars(c) and c is not object]
    found = {name: p.default for make in makers for name, p in inspect.signature(make).parameters.items()}
    return {name: default for name, default in found.items() if name != "self"}


def is_section(class_path: str) -> bool:
    """Whether it is a dataclass, whose keys stand in its place, without class_path and init_args."""
    try:
        return is_dataclass(load_class(class_path))
    except (ImportError, AttributeError, ValueError):
        return False


def keys_below(class_path: str) -> list[str]:
    """The dotted keys of a class's parameters, and of those of the classes that are its defaults."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(load_class(class_path), fail_untyped=False)
        defaults = parser.get_defaults()
    except Exception:  # a user-defined class may have annotations or defaults of any kind
        return list(parameters(class_path))
    return list(_keys(defaults))


def type_of(class_path: str, name: str) -> str | None:
    """The type of a class's parameter as text, or None where it cannot be determined."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(load_class(class_path), fail_untyped=False)
        return str(next(private.type_of(option) for option in private.options_of(parser) if option.dest == name))
    except Exception:  # a user-defined class may have annotations or defaults of any kind
        return None


def imported_subclasses(base: type) -> list[type]:
    """The public classes below one, as far as they are imported."""
    found: dict[type, None] = {}
    left: list[type] = [base]
    while left:
        below: list[type] = left.pop().__subclasses__()
        found |= dict.fromkeys(below)
        left += below
    return [cls for cls in found if not cls.__name__.startswith("_")]


def public_path(cls: type) -> str:
    """The shortest path by which a class can be imported from its package."""
    parts = cls.__module__.split(".")
    for n in range(1, len(parts)):
        module = ".".join(parts[:n])
        if (
            not any(part.startswith("_") for part in parts[:n])
            and getattr(import_module(module), cls.__qualname__, None) is cls
        ):
            return f"{module}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _keys(tree: Namespace, prefix: str = "") -> Iterator[str]:
    for key, value in vars(tree).items():
        yield prefix + key
        if isinstance(value, Namespace):
            yield from _keys(value, f"{prefix}{key}.")
