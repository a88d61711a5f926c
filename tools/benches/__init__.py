"""`tools/bench`: figures of the shipped daemon as a process of its own, with real syncs, against an API server that is another process and
a C-core gRPC client as the kubelet. Two processes and the client share the machine: medians, and side by side, or not at all."""
