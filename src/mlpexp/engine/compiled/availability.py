"""Whether the compiled engine can be used here, and where its compiled code is kept. Imports no numba by itself."""

import hashlib
import os
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mlpexp.nn.layers import Activate
from mlpexp.nn.network import NetworkSpec, multilayer_perceptron

# what has a compiled form: the keys of COMPILED_ACTIVATIONS in their order (`engine/compiled/activations.py`), and the
# numbers by which `kernels.py` knows the optimizers
ACTIVATIONS = ("tanh", "relu", "leaky_relu", "sigmoid", "gelu", "silu", "elu", "softplus", "sine", "identity")
OPTIMIZERS = {"sgd": 0, "adam": 1, "adamw": 2}


def unsupported(network: NetworkSpec, optimizer: str) -> str | None:
    """Why a network cannot be trained by compiled code with this optimizer; None where it can."""
    activation, sizes = activation_of(network), network.sizes
    if network != multilayer_perceptron(sizes[0], sizes[1:-1], sizes[-1], activation):
        return "only dense layers with one activation between them have a compiled form"
    if activation not in ACTIVATIONS:
        return f"the activation {activation!r} has no compiled form; choose one of {', '.join(ACTIVATIONS)}"
    if optimizer not in OPTIMIZERS:
        return f"the optimizer {optimizer!r} has no compiled form; choose one of {', '.join(OPTIMIZERS)}"
    return None


def activation_of(network: NetworkSpec) -> str:
    """The activation of all hidden layers; `identity` without hidden layers."""
    return next((layer.name for layer in network.layers if isinstance(layer, Activate)), "identity")


@cache
def unavailable() -> str | None:
    """Why the compiled engine cannot be used on this machine; None where it can."""
    if find_spec("numba") is None:
        return "numba is not installed; pip install 'mlpexp[fast]' trains stacks several times faster"
    import llvmlite.binding as llvm  # not numba itself, which imports scipy

    if os.environ.get("NUMBA_CPU_NAME"):  # numba then compiles for another processor
        features = os.environ.get("NUMBA_CPU_FEATURES", "").split(",")
    else:
        features = llvm.get_host_cpu_features().flatten().split(",")
    # arm64 always has it, as part of its floating-point unit
    if not {"+fma", "+neon", "+fp-armv8"} & set(features):
        return "this processor has no fused multiply-add"
    return None


def cache_directory() -> Path | None:
    """The directory for numba's compile cache, below the user's cache folder; None where it cannot be written.

    It is named after the engine's sources: numba itself looks only at the file of the function that it compiles, and
    would use old code after a change in another one.
    """
    content = hashlib.sha256(version("numba").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content.update(path.read_bytes())
    directory = _user_cache() / "mlpexp" / f"numba-{content.hexdigest()[:16]}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        return None


def _user_cache() -> Path:
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given)
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
