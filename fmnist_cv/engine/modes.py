"""Which parts of a module are frozen: a state that a training may change, and that a state_dict does not hold."""

from __future__ import annotations

from torch import nn


def modes_of(module: nn.Module) -> dict[str, list[str]]:
    """Names of parameters without gradients, of parts in evaluation mode, and of norms that keep no statistics."""
    parts = dict(module.named_modules())
    return {
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "evaluating": [name for name, part in parts.items() if not part.training],
        "untracked": [name for name, part in parts.items() if getattr(part, "track_running_stats", None) is False],
    }


def set_modes(module: nn.Module, modes: dict[str, list[str]]) -> None:
    """Freeze and unfreeze the module's parts as they were when `modes_of` looked at them."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in modes["frozen"])
    for name, part in module.named_modules():
        part.training = name not in modes["evaluating"]
        if hasattr(part, "track_running_stats"):
            part.track_running_stats = name not in modes["untracked"]
