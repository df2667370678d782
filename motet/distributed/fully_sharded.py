"""Weights, gradients and optimizer state sharded over the processes (FSDP2: torch's `fully_shard`).

The layers of transformers are units: each gathers its weights when it starts and frees them when it ends, forwards and
backwards. All other trainable components, embeddings and heads among them, are gathered for a whole replay (the root).
Components of which nothing trains are whole in every process. For a rollout everything is gathered once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from motet.config import PolicyConfig
from motet.core.errors import ConfigError
from motet.core.protocols import Replay, TrainablePolicy
from motet.core.trajectory import Act
from motet.distributed.missing_weights import MissingWeights
from motet.distributed.parallel import Parallel
from motet.distributed.passes import Pass, agree_on_passes
from motet.distributed.processes import Processes
from motet.distributed.root_module import (
    Output,
    RootModule,
    leaves,
    tensors_of,
    to_output,
    to_replays,
    with_zero_gradients,
)
from motet.distributed.sharded_files import require_torch
from motet.policies.meta_loading import loading_without_weights
from motet.policies.same_passes import same_passes
from motet.policies.sharding import ShardablePolicy
from motet.policies.shards import full_data, is_sharded, local_data


class FullySharded(Parallel):
    """FSDP2 over all processes. A process that is alone has no units: weights are those of a run without, bit for bit.

    (A block with several inputs, as in denoisers, adds up its own gradients to each before it passes them on. Without
    units they are added in the order of a run without sharding.)
    """

    name = "fsdp"
    saves_alone = False

    def __init__(self, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self._root: Any = None
        self._policy: ShardablePolicy
        self._gathered = False
        self._tied: set[int] = set()  # own parameters of the root that had a zero gradient in this step,
        self._used: set[int] = set()  # and those that had a gradient

    def load_policy(self, config: PolicyConfig) -> TrainablePolicy:
        """The main process reads the weights of a language model, and `prepare` sends them to the others.

        Not where there are adapters: every process reads those, and the weights that they go with.
        """
        adapted = config.lora is not None or (Path(config.path) / "adapter_config.json").is_file()
        if self.processes.is_main or adapted:
            return super().load_policy(config)
        with loading_without_weights():
            return super().load_policy(config)

    def prepare(self, policy: TrainablePolicy) -> None:
        """Shard the policy in place. Raises ConfigError for one that does not say how, and for a torch that cannot."""
        self._policy = _require_shardable(policy)
        require_torch("--parallel fsdp")
        from torch.distributed.fsdp import fully_shard  # a moment to import

        if not self._policy.trainable():
            raise ConfigError("The policy has no trainable parameters.", fix="name parts in policy.train.")
        components = [part for part in self._policy.parts.values() if any(p.requires_grad for p in part.parameters())]
        inside = {module for component in components for module in component.modules()}
        units = [unit for unit in self._policy.shard_units() if unit in inside and self.processes.size > 1]
        self._root = RootModule(components, units)
        _require_inside(self._policy, self._root)
        device = self.processes.broadcast(next(self._root.parameters()).device.type)
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        missing = MissingWeights(self.processes, self._policy.parts.values())
        for module in (*units, self._root):
            sharded: Any = fully_shard(module, mesh=mesh)
            sharded.set_gradient_divide_factor(1.0)  # losses are divided by counts over all processes
            sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other
        self._modules: list[Any] = [*units, self._root]
        missing.send(self._root, device)
        self._root(lambda: None)  # torch takes the first module that runs for the root
        self._root.reshard()

    @contextmanager
    def full_weights(self, policy: TrainablePolicy) -> Iterator[None]:
        """Inside, every process has all weights: a rollout, rewards and an evaluation run without any collective."""
        if self._gathered:
            yield
            return
        sharded = dict(self._named_parameters())
        for module in self._modules:
            module.unshard()
        self._gathered = True
        self._root.set_reshard_after_forward(False)
        try:
            with ExitStack() as stack:
                if self.gathers_reference:
                    now = dict(self._named_parameters())
                    whole = {id(parameter): now[place] for place, parameter in sharded.items()}
                    for reference in self._policy.references:
                        own = {name: whole[id(parameter)] for name, parameter in reference.parameters.items()}
                        stack.enter_context(reference.gathered(own))
                yield
        finally:
            self._gathered = False
            self._policy.free_sampler()  # it may share memory with weights that are freed now
            self._root.set_reshard_after_forward(True)
            self._root.set_reshard_after_forward(False, recurse=False)  # until the backward pass
            for module in self._modules:
                module.reshard()

    @contextmanager
    def weights_on_main(self, policy: TrainablePolicy) -> Iterator[None]:
        """Inside, whole weights stand in the main process's modules, on the CPU: `save` and no more.

        Not those of `full_weights`, which FSDP2 takes away from whoever asks for a `state_dict`.
        """
        sharded = list(self._named_parameters())
        whole: dict[nn.Parameter, nn.Parameter] = {}
        for _, parameter in sharded:
            if parameter not in whole:  # shared ones stay shared
                gathered = full_data(parameter)
                if self.processes.is_main:
                    whole[parameter] = nn.Parameter(gathered.cpu(), parameter.requires_grad)
        try:
            for (module, name), parameter in sharded:
                setattr(module, name, whole.get(parameter, parameter))
            yield
        finally:
            for (module, name), parameter in sharded:
                setattr(module, name, parameter)

    def agree_on_passes(
        self, policy: TrainablePolicy, acts: Sequence[Act], micro_batches: Sequence[Sequence[int]]
    ) -> list[Pass]:
        return agree_on_passes(self.processes, self._policy, acts, micro_batches)

    def replay(self, policy: TrainablePolicy, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        with same_passes(self.processes.all_gather):
            output = self._root(lambda: self._forward(policy, acts, needs))
        if not torch.is_grad_enabled():  # else the backward pass does
            self._root.reshard()
        return to_replays(output)

    def _forward(self, policy: TrainablePolicy, acts: Sequence[Act], needs: Collection[str]) -> Output:
        """The replays; in all processes a backward pass from them reaches the same parameters of the root."""
        output = to_output(policy.replay(acts, needs))
        if not torch.is_grad_enabled():
            return output
        reached = leaves(tensors_of(output))
        if not any(self.processes.all_gather(bool(reached))):
            return output
        own = self._root.own_parameters()
        used = {number for number, parameter in own.items() if parameter in reached}
        self._used |= used
        self._tied |= own.keys() - used
        missing = [parameter for number, parameter in own.items() if number not in used]
        return with_zero_gradients(output, missing) if missing or not reached else output

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """The backward passes have added up the gradients; what no process used has none, as in a run of one."""
        self._root.reshard()  # after a replay without a backward pass
        used = set().union(*self.processes.all_gather(self._used))
        own = self._root.own_parameters()
        for number in self._tied - used:
            own[number].grad = None
        self._tied, self._used = set(), set()

    def clip_gradient(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        own = [parameter for parameter in parameters if parameter.grad is not None]
        if not all(is_sharded(parameter) for parameter in own):
            raise RuntimeError("a parameter that trains is not sharded: its gradient would count once per process")
        shards = [local_data(parameter.grad) for parameter in own if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(shards)
        if self.processes.size > 1:
            square = norm.square()
            self.processes.all_reduce_([square])
            norm = square.sqrt()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as `clip_grad_norm_` computes it
        for shard in shards:
            shard.mul_(scale)
        return norm

    def _named_parameters(self) -> Iterator[tuple[tuple[nn.Module, str], nn.Parameter]]:
        """Everything sharded, by where it stands: FSDP2 puts other parameters there when it gathers them."""
        for module in self._root.modules():
            for name, parameter in module.named_parameters(recurse=False):
                yield (module, name), parameter


def _require_shardable(policy: TrainablePolicy) -> ShardablePolicy:
    if not isinstance(policy, ShardablePolicy):
        raise ConfigError(
            f"A {type(policy).__name__} cannot be sharded: it has no `shard_units`.",
            fix="use --parallel replicas, or give it the methods of motet.policies.sharding.ShardablePolicy.",
        )
    return policy


def _require_inside(policy: ShardablePolicy, root: nn.Module) -> None:
    """Every trainable parameter is sharded: one that is not would have the gradient of its own process alone."""
    inside = set(root.parameters())
    for name, parameter in policy.trainable().items():
        if parameter not in inside:
            raise ConfigError(
                f"The trainable parameter {name!r} is in none of the policy's parts ({', '.join(policy.parts)}), so it "
                "cannot be sharded.",
                fix="use --parallel replicas, or make it part of a module in the policy's `parts`.",
            )
