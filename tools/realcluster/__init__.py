"""A real Kubernetes on one machine: etcd, API server, controller manager, scheduler, kubelet and containerd, one node.

Unlike `tools.simcluster` nothing here is ours: the programs are built from their Go modules, runc, the CNI plugins and busybox are Debian
packages. Everything runs in a network namespace of its own below one directory, and `down` leaves nothing of it.

    versions    which releases, and what each must be told
    programs    built from pinned modules, cached by version
    needs       what the machine must have
    site        the directory, and what is recorded in it
    node_init   the node's first process: mounts, network, parent of every program
    node        the same from outside: begin, end, orders, commands inside
    pki         certificates and kubeconfigs
    images      busybox, as an image
    bare_nodes  more nodes, without kubelets
    components  command lines and configuration files
    cluster     up, down, status, faults
"""
