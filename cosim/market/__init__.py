"""The local flexibility market: network-constrained clearing, robust against forecast errors, and its prices.

Pure functions on records and arrays; the network comes as `network.NetworkRows`, solvers behind `program.Solver`.
"""
