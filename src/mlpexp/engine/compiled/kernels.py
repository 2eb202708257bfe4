"""An epoch of training, and an evaluation, of one run after the other.

The batch lies along the vectors: activations are (units, batch), weights (outputs, inputs) as in torch with rows
padded to whole vectors. So forward pass, input gradient and weight gradient are one kind of product. All that a run
needs while it is trained is in one scratch array `m` of float32 and is named by where it begins there:
parameters, gradients and the optimizer's state side by side at 0, P, 2 P and 3 P, then what `memory_layout` places.

Letters: R runs, B batch, N samples, I inputs, O outputs of a layer, C classes, P numbers of a run's parameters,
T parameter tensors (weight and bias of each layer in turn), S steps, n samples of an epoch.
"""

import numpy as np
from numba import njit, types

from mlpexp.engine.compiled.elementary import exp, log
from mlpexp.engine.compiled.matrix_kernels import transpose
from mlpexp.engine.compiled.vectors import (
    LINE,
    LOOP,
    MEMORY,
    PRODUCT,
    UPDATE,
    exceeds,
    full,
    load,
    store,
    total,
    where,
)

# a number in the source would be a type of its own, and have the callee compiled once more for it
ZERO, ONE = np.int64(0), np.int64(1)

# columns of a layer's row in the memory layout: sizes, row length, then where things begin
(INPUTS, OUTPUTS, LEAD, WEIGHT, BIAS, PRE, HIDDEN, GRADIENT, BELOW, BELOW_PRE, BELOW_GRADIENT) = range(11)
# what else has a place: the batch as rows (B, I), a transposed activation, labels, each sample's share of the batch's
# mean loss, losses, predicted classes, a line of zeros
ROWS, TRANSPOSED, LABELS, SHARES, LOSSES, CHOICES, ZEROS = range(7)


@njit(nogil=True)
def _copy(source, i, target, j, count):
    for k in range(0, count, LINE):
        store(target, j + k, load(source, i + k))


@njit(nogil=True)
def _gather(m, layers, places, samples, index, begin, size, width):
    """The samples of a batch as rows and, transposed, as the inputs of the first layer; zeros beyond `size`."""
    lead, rows = layers[0, LEAD], places[ROWS]
    for b in range(size):
        _copy(samples[begin + index[b]], ZERO, m, rows + b * lead, lead)
    for i in range(rows + size * lead, rows + width * lead, LINE):
        store(m, i, 0.0)
    transpose(m, width, lead, rows, lead, layers[0, BELOW], width)


@njit(nogil=True)
def _forward(m, layers, width, product, activate, keeps_input):
    """From the inputs of the first layer to the logits (C, B)."""
    for k in range(len(layers)):
        outputs, hidden = layers[k, OUTPUTS], layers[k, HIDDEN]
        is_last = k == len(layers) - 1
        pre = layers[k, PRE] if keeps_input and not is_last else hidden
        product(
            m, outputs, width, layers[k, INPUTS], layers[k, WEIGHT], layers[k, LEAD], ONE, layers[k, BELOW], width,
            pre, width, layers[k, BIAS], ONE,
        )  # fmt: skip
        if not is_last:
            activate(m, pre, hidden, ZERO, outputs * width)


@njit(nogil=True)
def _measure(m, logits, num_classes, width, places):
    """Each sample's loss in nats and its class of the largest logit, the first one of equals.

    Afterwards exp(logit - largest logit) stands in the logits' place.
    """
    for b in range(0, width, LINE):
        label, largest, choice = load(m, places[LABELS] + b), load(m, logits + b), full(0.0)
        for c in range(1, num_classes):
            logit = load(m, logits + c * width + b)
            more = exceeds(logit, largest)
            largest, choice = where(more, logit, largest), where(more, c, choice)
        sum_, label_logit = full(0.0), full(0.0)
        for c in range(num_classes):
            logit = load(m, logits + c * width + b) - largest
            label_logit = where(label == c, logit, label_logit)
            power = exp(logit)
            sum_ = sum_ + power
            store(m, logits + c * width + b, power)
        store(m, places[LOSSES] + b, log(sum_) - label_logit)
        store(m, places[CHOICES] + b, choice)


@njit(nogil=True)
def _logits_gradient(m, logits, gradient, num_classes, width, places):
    """(softmax - one-hot) times each sample's share of the mean loss, from what `_measure` has left."""
    for b in range(0, width, LINE):
        label, sum_ = load(m, places[LABELS] + b), load(m, logits + b)
        for c in range(1, num_classes):
            sum_ = sum_ + load(m, logits + c * width + b)
        over, share = 1.0 / sum_, load(m, places[SHARES] + b)
        for c in range(num_classes):
            probability = load(m, logits + c * width + b) * over
            error = where(label == c, probability - 1.0, probability)
            # 0 beyond the batch, also where the network's answer is NaN
            store(m, gradient + c * width + b, where(share > 0.0, error * share, 0.0))


@njit(nogil=True)
def _backward(m, layers, places, P, width, size, product, multiply_by_slope, keeps_input):
    """The gradients of all parameters, from that of the logits."""
    zeros = places[ZEROS]
    for k in range(len(layers) - 1, -1, -1):
        inputs, outputs, lead, gradient = layers[k, INPUTS], layers[k, OUTPUTS], layers[k, LEAD], layers[k, GRADIENT]
        below = places[ROWS]
        if k > 0:
            below, hidden, below_gradient = places[TRANSPOSED], layers[k, BELOW], layers[k, BELOW_GRADIENT]
            transpose(m, lead, width, hidden, width, below, lead)
            product(
                m, inputs, width, outputs, layers[k, WEIGHT], ONE, lead, gradient, width, below_gradient, width,
                zeros, ZERO,
            )  # fmt: skip
            pre = layers[k, BELOW_PRE] if keeps_input else hidden
            multiply_by_slope(m, pre, hidden, below_gradient, inputs * width)
        product(
            m, outputs, lead, size, gradient, width, ONE, below, lead, P + layers[k, WEIGHT], lead, zeros, ZERO
        )  # fmt: skip
        for o in range(outputs):
            sum_ = load(m, gradient + o * width)
            for b in range(LINE, width, LINE):
                sum_ = sum_ + load(m, gradient + o * width + b)
            m[P + layers[k, BIAS] + o] = total(sum_)


@njit(nogil=True)
def _update_all(m, P, bounds, update, rates, decay, numbers, step):
    """One step of all parameters; those that share rate and decay in one go."""
    t = 0
    while t < len(rates):
        last = t
        while last + 1 < len(rates) and rates[last + 1] == rates[t] and decay[last + 1] == decay[t]:
            last += 1
        update(m, P, bounds[t], bounds[last + 1], rates[t], decay[t], numbers, step)
        t = last + 1


def train(
    first, stop, product, activate, multiply_by_slope, keeps_input, update, m, layers, places, bounds, P, samples,
    begins, labels, order, batch, class_weights, rates, decay, numbers, num_steps, parameters, state, losses,
    predictions, weights,
):  # fmt: skip
    """An epoch of the runs first..stop, which have one activation; `parameters` and `state` change in place.

    Args:
        product, activate, multiply_by_slope, update: compiled functions, see `compile_cache.py`.
        keeps_input: the activation's derivative reads its input.
        m: scratch memory; `layers`, `places`, `bounds`, P: see `memory_layout`.
        samples: (N, I padded to whole vectors); `begins` (R,): where each run's begin.
        labels: (1, N) or (R, N) int64.
        order: each run's samples in turn, (R, n) int64.
        class_weights: (R, C), or (0, 0) where all classes count alike.
        rates: (1 or S, R, T) float64; decay: (R, T); numbers: the optimizer's own of each run, (R, K).
        num_steps: taken before.
        parameters: (R, P); state: (R, 0, P or 2 P).
        losses, predictions, weights: written, (R, n); weights only with class weights.
    """
    last = len(layers) - 1
    logits, gradient, num_classes = layers[last, HIDDEN], layers[last, GRADIENT], layers[last, OUTPUTS]
    n = order.shape[1]
    for r in range(first, stop):
        own_labels = labels[r if len(labels) > 1 else 0]
        _copy(parameters[r], ZERO, m, ZERO, P)
        _copy(state[r], ZERO, m, 2 * P, state.shape[1])
        for i in range(P, 2 * P):
            m[i] = 0
        for start in range(0, n, batch):
            size = min(batch, n - start)
            width = (size + LINE - 1) // LINE * LINE
            index = order[r, start : start + size]
            _gather(m, layers, places, samples, index, begins[r], size, width)
            sum_ = 0.0
            for b in range(size):
                label = own_labels[index[b]]
                m[places[LABELS] + b] = label
                weight = class_weights[r, label] if len(class_weights) > 0 else np.float32(1.0)
                m[places[SHARES] + b] = weight
                sum_ += weight
            for b in range(width):
                m[places[SHARES] + b] = m[places[SHARES] + b] / sum_ if b < size else 0
            _forward(m, layers, width, product, activate, keeps_input)
            _measure(m, logits, num_classes, width, places)
            _logits_gradient(m, logits, gradient, num_classes, width, places)
            for b in range(size):
                losses[r, start + b] = m[places[LOSSES] + b]
                predictions[r, start + b] = np.int64(m[places[CHOICES] + b])
                if len(class_weights) > 0:
                    weight = class_weights[r, own_labels[index[b]]]
                    weights[r, start + b] = weight
                    losses[r, start + b] *= weight
            _backward(m, layers, places, P, width, size, product, multiply_by_slope, keeps_input)
            step = start // batch
            own_rates = rates[step if len(rates) > 1 else 0, r]
            _update_all(m, P, bounds, update, own_rates, decay[r], numbers[r], num_steps + step + 1)
        _copy(m, ZERO, parameters[r], ZERO, P)
        _copy(m, 2 * P, state[r], ZERO, state.shape[1])


def evaluate(
    first, stop, product, activate, keeps_input, m, layers, places, P, samples, begins, labels, index, panel,
    parameters, losses, predictions,
):  # fmt: skip
    """Losses and predicted classes of the samples `index` (1 or R, n), for the runs first..stop of one activation.

    Args:
        panel: samples at once, whole vectors.
        losses, predictions: written, (R, n). The other arguments: as of `train`.
    """
    last = len(layers) - 1
    logits, num_classes = layers[last, HIDDEN], layers[last, OUTPUTS]
    n = index.shape[1]
    for r in range(first, stop):
        own_labels = labels[r if len(labels) > 1 else 0]
        _copy(parameters[r], ZERO, m, ZERO, P)
        for start in range(0, n, panel):
            size = min(panel, n - start)
            rows = index[r if len(index) > 1 else 0, start : start + size]
            _gather(m, layers, places, samples, rows, begins[r], size, panel)
            _forward(m, layers, panel, product, activate, keeps_input)
            for b in range(size):
                m[places[LABELS] + b] = own_labels[rows[b]]
            _measure(m, logits, num_classes, panel, places)
            for b in range(size):
                losses[r, start + b] = m[places[LOSSES] + b]
                predictions[r, start + b] = np.int64(m[places[CHOICES] + b])


_NUMBER, _FLAG = types.int64, types.boolean
_VECTOR, _TABLE = types.int64[::1], types.int64[:, ::1]
_FLOATS, _DOUBLES = types.float32[:, ::1], types.float64[:, ::1]
_PRODUCT, _LOOP, _UPDATE = types.FunctionType(PRODUCT), types.FunctionType(LOOP), types.FunctionType(UPDATE)
SIGNATURES = {
    "train": types.void(
        *(_NUMBER, _NUMBER, _PRODUCT, _LOOP, _LOOP, _FLAG, _UPDATE, MEMORY, _TABLE, _VECTOR, _VECTOR, _NUMBER),
        *(_FLOATS, _VECTOR, _TABLE, _TABLE, _NUMBER, _FLOATS, types.float64[:, :, ::1], _DOUBLES, _DOUBLES, _NUMBER),
        *(_FLOATS, _FLOATS, _FLOATS, _TABLE, _FLOATS),
    ),
    "evaluate": types.void(
        *(_NUMBER, _NUMBER, _PRODUCT, _LOOP, _FLAG, MEMORY, _TABLE, _VECTOR, _NUMBER, _FLOATS, _VECTOR, _TABLE),
        *(_TABLE, _NUMBER, _FLOATS, _FLOATS, _TABLE),
    ),
}
