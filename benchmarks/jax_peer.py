"""What a researcher writes in JAX: vmap over runs, scan over steps and epochs, jitted; 64-50-10, SGD, batch 32.

    python benchmarks/jax_peer.py RUNS        (needs jax: pip install 'mlpexp[bench]')

Prints one JSON object: seconds to compile, seconds to train, mean accuracy after ten epochs. Nothing is written to
files. It shuffles, drops the last small batch and evaluates all samples after each epoch.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

EPOCHS, BATCH, WIDTH, RATE = 10, 32, 50, 0.1

DIGITS = load_digits()
INPUTS = jnp.array(DIGITS.data / 16, jnp.float32)
LABELS = jnp.array(DIGITS.target)


def network(key):
    layers = []
    for inputs, outputs in ((64, WIDTH), (WIDTH, 10)):
        key, for_weight, for_bias = jax.random.split(key, 3)
        bound = inputs**-0.5
        weight = jax.random.uniform(for_weight, (inputs, outputs), minval=-bound, maxval=bound)
        layers.append((weight, jax.random.uniform(for_bias, (outputs,), minval=-bound, maxval=bound)))
    return layers


def logits(layers, x):
    for weight, bias in layers[:-1]:
        x = jnp.tanh(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def loss(layers, x, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(layers, x)), y[:, None], 1))


def epoch(layers, key):
    steps = len(INPUTS) // BATCH
    order = jax.random.permutation(key, len(INPUTS))[: steps * BATCH].reshape(steps, BATCH)

    def step(layers, index):
        gradients = jax.grad(loss)(layers, INPUTS[index], LABELS[index])
        return jax.tree.map(lambda p, g: p - RATE * g, layers, gradients), None

    layers, _ = jax.lax.scan(step, layers, order)
    return layers, (loss(layers, INPUTS, LABELS), jnp.mean(logits(layers, INPUTS).argmax(1) == LABELS))


def train(key):
    initial, orders = jax.random.split(key)
    return jax.lax.scan(epoch, network(initial), jax.random.split(orders, EPOCHS))


def main() -> None:
    keys = jax.random.split(jax.random.key(0), int(sys.argv[1]))
    started = time.perf_counter()
    program = jax.jit(jax.vmap(train)).lower(keys).compile()
    compiled = time.perf_counter()
    _, (_, accuracies) = jax.block_until_ready(program(keys))
    ended = time.perf_counter()
    result = {"compile_s": compiled - started, "train_s": ended - compiled, "accuracy": float(accuracies[:, -1].mean())}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
