"""Devices, batches, gradients, processes, and weights that are loaded whole or refused."""
