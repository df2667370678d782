"""Losses by name, one file each. A module of this package registers its losses when the package is imported."""

from importlib import import_module
from pkgutil import iter_modules

from motet.training.losses.base import Loss, LossSettings, Needs, Sample
from motet.training.losses.resolving import LOSSES, check_algorithm, kind_config, loss_key, resolve_loss, resolve_losses

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "LOSSES",
    "Loss",
    "LossSettings",
    "Needs",
    "Sample",
    "check_algorithm",
    "kind_config",
    "loss_key",
    "resolve_loss",
    "resolve_losses",
]
