"""One fake machine in memory, keeping the promises of `dra.kernel_tree.KernelTree` and acting as the kernel would.

Nouns, from the ground up:

- `machine`: the document a machine is described by, checked;
- `tree`: directories, files with modes, links and device nodes; instantiated as they are looked at;
- `uevents`: what the kernel tells listeners; `faults`: what a test or a person makes go wrong;
- `devices`: what the driver core makes of a device directory (class links, `dev/char`, nodes in /dev);
- `drm` and `vfio`: what a driver makes when it binds; `drivers`: who may bind to what;
- `prelim` and `xe_admin`: what the drivers keep for VFs; `provisioning`: whichever of the two is bound;
- `pci`: the bus, functions that come and go; `health`: wedged cards, survivability, PCIe errors;
- `config_space`: its first bytes; `driver_counters`: what a driver counts; `symptoms`: what a card's files show of its health;
- `virtual_function`: one VF; `sriov`: making them all;
- `attributes`: the table of files whose write does something;
- `seam`: the calls of KernelTree; `kernel`: `SimKernel`, which adds what people and tests may do;
- `requests` and `control`: the same as data, for a socket and for a log.

Synchronous and free of I/O, clocks and threads: how to sleep and how to lock are handed in.
"""
