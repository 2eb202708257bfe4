"""A trained network as a plain module of torch, without Lightning."""

from collections.abc import Mapping

from torch import Tensor, nn

from mlpexp.nn.network import NetworkSpec, forward


class PlainNetwork(nn.Module):
    """The layers of a network; its state dict has the names and tensors of the checkpoint.

    `forward` takes prepared inputs (B, I), such as `results.data.part("test")` gives, and returns logits (B, C).
    They are those of an evaluation, after `train()` too: without dropout, with running statistics.

    Attributes:
        network: the layers as data.
    """

    def __init__(self, network: NetworkSpec, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        for name in network.tensors:
            *path, tensor_name = name.split(".")
            module: nn.Module = self
            for child in path:
                if child not in module._modules:
                    module.add_module(child, nn.Module())
                module = module.get_submodule(child)
            if name in network.shapes:
                module.register_parameter(tensor_name, nn.Parameter(weights[name].detach().clone()))
            else:
                module.register_buffer(tensor_name, weights[name].detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of prepared inputs (B, I)."""
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        values = {name: tensors[name] for name in self.network.tensors}
        return forward(self.network, values, inputs.to(next(iter(values.values())).dtype)).logits
