"""What can be told of a cluster's GPUs from its API objects alone: what there is, who holds it, and why a claim does not get any."""
