"""`kubectl intel-gpu`: what the cluster's GPUs are, who has them, and why a claim gets none. Reads only; short-lived and synchronous."""
