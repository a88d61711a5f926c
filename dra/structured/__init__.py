"""Allocation as the scheduler of Kubernetes 1.31 to 1.37 does it: what pools offer, what of it is taken, and what fits."""
