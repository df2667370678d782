"""What an optimizer has beside a policy's saved weights, as named tensors: in one file, or in shards.

Named `parameter|weight`, `parameter|exp_avg` and so on: the trained weights once more, unrounded, the state of AdamW,
and the reference once it has moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from motet.core.errors import CheckpointError
from motet.core.protocols import TrainablePolicy
from motet.distributed.sharded_files import load_sharded, sizes_in
from motet.policies.shards import local_data
from motet.policies.trainable import reference_weights, restore_reference
from motet.training.optimizer_step import PolicyOptimizer
from motet.weights.locate import LEARNER, LEARNER_SHARDS

_WEIGHT, _REFERENCE, _STEP = "weight", "reference", "step"


def learner_tensors(policy: TrainablePolicy, optimizer: PolicyOptimizer) -> dict[str, Tensor]:
    """The tensors of a checkpoint; of sharded parameters they are sharded too."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in policy.trainable().items():
        for key, value in {_WEIGHT: parameter, **optimizer.adamw.state.get(parameter, {})}.items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach()
    if optimizer.reference_moved:
        tensors |= {f"{name}|{_REFERENCE}": weight for name, weight in reference_weights(policy).items()}
    return tensors


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors writes them."""
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


class StoredLearner:
    """The tensors of a checkpoint. `whole`: the run's own are not sharded.

    Raises CheckpointError, OSError or SafetensorError for files that cannot be read.
    """

    def __init__(self, folder: Path, whole: bool) -> None:
        self.folder = folder
        self._files = folder / LEARNER_SHARDS if (folder / LEARNER_SHARDS).is_dir() else folder
        in_one_file = whole and self._files == folder
        self._tensors = load_file(str(folder / LEARNER)) if in_one_file else None
        sizes = sizes_in(self._files) if self._tensors is None else {k: v.shape for k, v in self._tensors.items()}
        self.sizes: dict[str, dict[str, torch.Size]] = {}
        for key, size in sizes.items():
            name, separator, what = key.rpartition("|")
            if separator:  # else a tensor of the policy's own files
                self.sizes.setdefault(name, {})[what] = size

    def load(self, policy: TrainablePolicy, optimizer: PolicyOptimizer) -> None:
        """Into the policy and the optimizer. Raises CheckpointError where they have other parameters."""
        parameters = policy.trainable()
        if {name: p.shape for name, p in parameters.items()} != {n: own[_WEIGHT] for n, own in self.sizes.items()}:
            raise CheckpointError(
                f"{str(self.folder)!r} holds other trained parts than this recipe's policy has.",
                fix="resume with the run's own recipe.yaml.",
            )
        tensors = self._tensors or self._read(parameters)
        stored = {name: {what: tensors[f"{name}|{what}"] for what in own} for name, own in self.sizes.items()}
        references = {name: own.pop(_REFERENCE) for name, own in stored.items() if _REFERENCE in own}
        if references:
            restore_reference(policy, references)
            optimizer.reference_moved = True
        fused = optimizer.adamw.defaults["fused"]  # its kernel reads the step number from the device too
        for name, parameter in parameters.items():
            local_data(parameter).copy_(local_data(stored[name].pop(_WEIGHT)))
            if stored[name]:
                optimizer.adamw.state[parameter] = {
                    key: value if key == _STEP and not fused else value.to(parameter.device)
                    for key, value in stored[name].items()
                }

    def _read(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From files, into tensors that are sharded like the parameters."""
        tensors = {
            f"{name}|{what}": torch.zeros(size) if what == _STEP else torch.zeros_like(parameters[name].detach())
            for name, own in self.sizes.items()
            for what, size in own.items()
        }
        load_sharded(self._files, tensors)
        return tensors
