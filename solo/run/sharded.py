"""`strategy=fsdp`: parameters, gradients and optimizer states are shared out among the processes (FSDP2)."""

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from solo import distributed

UNIT = 1_000_000  # parameters: smaller layers than this are gathered together with the rest of the network


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints as those of any other run: one file of whole tensors.

    The layers of each backbone are gathered when they are used, what is left (heads, prototypes, norms) once a step.
    """

    restore_checkpoint_after_setup = False  # weights are loaded while they are whole
    lightning_restore_optimizer = True

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Share weights among all processes of all machines."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Give all processes the first one's weights, share them out, and make the optimizers of the shares."""
        module = self.lightning_module
        assert module is not None and self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(module)
        self.model_to_device()
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
        shard(module, self.device_mesh["data_parallel"])
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, in the first process."""
        assert self.lightning_module is not None
        return {name: _whole(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole tensors, in the first process."""
        state = getattr(optimizer, "_optimizer", optimizer).state_dict()
        whole = {i: {key: _whole(value) for key, value in own.items()} for i, own in state["state"].items()}
        return {**state, "state": whole}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """By the run's own reader, in each process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Before the weights are shared out."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each process keeps its share."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(saved)
            for p, own in optimizer.state.items():
                for key, value in own.items():
                    if isinstance(p, DTensor) and value is not None and getattr(value, "shape", None) == p.shape:
                        own[key] = distribute_tensor(value, p.device_mesh, p.placements)


def _whole(value: Any) -> Any:
    """On the CPU in the first process; all have to call it."""
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if distributed.rank() == 0 else None


def shard(module: nn.Module, mesh: Any) -> None:
    """Share out a method's parameters: the layers of its backbones one by one, the rest together."""
    for name, part in module.named_children():
        for stack in reversed(list(part.modules())) if name.endswith("backbone") else ():  # inner ones first
            for layer in stack if isinstance(stack, (nn.Sequential, nn.ModuleList)) else ():
                if sum(p.numel() for p in layer.parameters()) >= UNIT:
                    fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for step in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, step)
