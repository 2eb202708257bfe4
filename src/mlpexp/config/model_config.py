"""The keys of a network: the group `model` of the configuration. This file imports nothing heavy, as `schema.py`."""

import json
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mlpexp.config.field_types import (
    SCHEMA,
    Count,
    Flag,
    NonNegative,
    OptionValues,
    Positive,
    Share,
    Text,
    Whole,
    choice,
)
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.nn.network import NetworkSpec, multilayer_perceptron
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.parametrization import PARAMETRIZATIONS
from mlpexp.nn.user_module import UserModule
from mlpexp.runtime.declared_options import Options
from mlpexp.runtime.object_cache import ByObject

Variant = Literal["torch_nn", "autograd", "backprop"]
Activation = Annotated[str, choice(lambda: ACTIVATIONS)]
Norm = Annotated[str, choice(lambda: ("none", *NORMS))]
Init = Annotated[str, choice(lambda: INITIALISERS)]
Parametrization = Annotated[str, choice(lambda: PARAMETRIZATIONS)]


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class ModelConfig:
    variant: Variant = "torch_nn"
    """implementation: torch_nn (nn.Linear), autograd (own parameters), backprop (own gradients)"""
    depth: Whole | None = None
    """hidden layers; 0 is a linear classifier; by default 1, or as many as width lists"""
    width: Count | list[Count] = 50
    """units per hidden layer: one number, or a list with one number a layer, e.g. [64,32]"""
    activation: Activation = "tanh"
    """the activation between layers"""
    negative_slope: NonNegative = 0.01
    """activation=leaky_relu only: its slope for negative inputs"""
    alpha: Positive = 1.0
    """activation=elu only: minus its limit for negative inputs"""
    bias: Flag = True
    """dense layers have biases"""
    norm: Norm = "none"
    """normalisation in each hidden layer: layer, batch, rms"""
    norm_position: Literal["pre", "post"] = "pre"
    """norm other than none only: before the activation (pre) or after it (post)"""
    dropout: Share | list[Share] = 0.0
    """share of outputs that is set to 0 in training, after each hidden layer: one number, or a list, e.g. [0.2,0.5]"""
    input_dropout: Share = 0.0
    """the same for the inputs"""
    residual: Flag = False
    """add the input of each block of block_depth hidden layers to its output, where it has as many units"""
    block_depth: Count = 1
    """residual=true only: hidden layers in a block, counted from the first hidden layer"""
    init: Init = "torch"
    """initial weights; torch is what nn.Linear does, notebook is N(0, 1) with zero biases"""
    sigma_w: NonNegative = 1.0
    """init=scaled_normal only: weights ~ N(0, sigma_w²/fan_in)"""
    sigma_b: NonNegative = 0.0
    """init=scaled_normal only: biases ~ N(0, sigma_b²)"""
    parametrization: Parametrization = "standard"
    """mup: weights and rates scale so that one best rate fits every width (Yang et al. 2022); for decay use adamw"""
    base_width: Count = 64
    """parametrization=mup only: the width at which it equals the standard parametrization"""
    options: OptionValues = Field(default_factory=Options)
    """options of your own activation or initialiser, e.g. model.options.slope=0.3"""
    _target_: Text | None = None
    """your own network: a class of torch.nn.Module, e.g. my_module.MyNetwork; its arguments are keys of model"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """its own arguments"""
    source: Text | None = None
    """the digest of its source"""

    @property
    def target(self) -> str | None:
        """The class of a user-defined network; None for mlpexp's network."""
        return self._target_

    @property
    def num_hidden(self) -> int:
        """The number of hidden layers; unlike `hidden_sizes` at no cost, however large it is."""
        return len(self.width) if isinstance(self.width, list) else 1 if self.depth is None else self.depth

    @property
    def hidden_sizes(self) -> list[int]:
        """Units of each hidden layer, first to last."""
        return list(self.width) if isinstance(self.width, list) else [self.width] * self.num_hidden

    def network(self, num_inputs: int, num_classes: int) -> NetworkSpec:
        """The network that these settings describe; one object for all runs that share the settings' object."""
        return _networks(self)(num_inputs, num_classes)

    def _network(self, num_inputs: int, num_classes: int) -> NetworkSpec:
        if self.target is not None:
            arguments = json.dumps(self.arguments, sort_keys=True, separators=(",", ":"))
            return NetworkSpec((UserModule(self.target, arguments, self.source or "", num_inputs, num_classes),))
        hidden = self.hidden_sizes
        return multilayer_perceptron(
            num_inputs,
            hidden,
            num_classes,
            self.activation,
            value=self.activation_value,
            bias=self.bias,
            norm=None if self.norm == "none" else self.norm,
            norm_position=self.norm_position,
            dropout=self.dropout if isinstance(self.dropout, list) else [self.dropout] * len(hidden),
            input_dropout=self.input_dropout,
            block_depth=self.block_depth if self.residual else None,
        )

    @property
    def activation_value(self) -> float | Options | None:
        """The value of the activation's key or options; None where it has none, or they have their defaults."""
        if declared := ACTIVATIONS.options_of(self.activation):
            return Options({key: value for key, value in self.options.items() if key in declared}) or None
        if (key := ACTIVATIONS[self.activation].key) is None:
            return None
        value = float(getattr(self, key))
        return None if value == type(self).__dataclass_fields__[key].default else value


_networks = ByObject(lambda model: cache(model._network))
