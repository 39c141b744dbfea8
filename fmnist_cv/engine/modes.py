"""Which parts of a module are frozen: training may change this state, and a state_dict does not contain it."""

from __future__ import annotations

from torch import nn


def modes_of(module: nn.Module) -> dict[str, list[str]]:
    """Names of parameters without gradients, of submodules in evaluation mode, and of norms without running statistics."""
    parts = dict(module.named_modules())
    return {
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "evaluating": [name for name, part in parts.items() if not part.training],
        "untracked": [name for name, part in parts.items() if getattr(part, "track_running_stats", None) is False],
    }


def set_modes(module: nn.Module, modes: dict[str, list[str]]) -> None:
    """Restore the modes that `modes_of` returned."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in modes["frozen"])
    for name, part in module.named_modules():
        part.training = name not in modes["evaluating"]
        if hasattr(part, "track_running_stats"):
            part.track_running_stats = name not in modes["untracked"]
