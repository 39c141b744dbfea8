"""`fmnist-cv --print_completion bash`: a static script by which a shell completes commands, options and choices."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from importlib import import_module

from fmnist_cv.config.jsonargparse_internals import private
from fmnist_cv.errors import UserError

HEADS = {
    "bash": "# fmnist-cv --print_completion bash > ~/.local/share/bash-completion/completions/fmnist-cv\n",
    "zsh": "# fmnist-cv --print_completion zsh > ~/.fmnist-cv.zsh, and in ~/.zshrc: source ~/.fmnist-cv.zsh\n"
    "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n",
}
SCRIPT = """
_fmnist_cv() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}} $before" in
{choices}
        *)
            case "$word" in -*)
                case "${{COMP_WORDS[1]}}" in
{options}
                esac
            esac
        esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
}}
complete -o bashdefault -o default -F _fmnist_cv fmnist-cv
"""


def script(arguments: Sequence[str], commands: Iterable[str]) -> str:
    """The script for a shell; files are completed where no word fits.

    Args:
        arguments: what follows --print_completion.
        commands: the names of the commands.

    Raises:
        UserError: it is not the name of a shell that this is for.
    """
    if len(arguments) != 1 or arguments[0] not in HEADS:
        given = f"'{' '.join(arguments)}'" if arguments else "missing"
        raise UserError(f"the shell of --print_completion is {given}; give one of {', '.join(HEADS)}")
    commands, options, choices = list(commands), [], []
    for command in commands:
        parser = import_module(f"fmnist_cv.{command}").make_parser()
        actions = [action for action in private.options_of(parser) if action.help != argparse.SUPPRESS]
        names = [name for action in actions for name in action.option_strings if not name.endswith("+")]
        options.append(f"                {command}) words={_quoted(names)} ;;")
        choices += [
            f"        {_quoted([command, name])}) words={_quoted(map(str, action.choices))} ;;"
            for action in actions
            if action.choices
            for name in action.option_strings
        ]
    return HEADS[arguments[0]] + SCRIPT.format(
        commands=" ".join(commands), choices="\n".join(choices), options="\n".join(options)
    )


def _quoted(words: Iterable[str]) -> str:
    return f'"{" ".join(words)}"'
