"""Experiments on multilayer perceptrons: one command, an answer with error bars."""
