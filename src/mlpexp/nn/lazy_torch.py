"""torch, imported when an attribute of it is first read: registries are read without it.

`Tensor` and `Generator` are for annotations only, in files with `from __future__ import annotations`.
"""

from typing import TYPE_CHECKING

from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor, nn
    from torch.nn import functional as F
    from torch.nn import init
else:
    torch, nn, F, init = map(LazyModule, ("torch", "torch.nn", "torch.nn.functional", "torch.nn.init"))
    Generator = Tensor = None

__all__ = ["F", "Generator", "Tensor", "init", "nn", "torch"]
