"""The mathematics of multilayer perceptrons, as pure functions and registries."""
