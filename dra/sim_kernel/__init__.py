"""One fake machine in memory, keeping the promises of `dra.kernel_tree.KernelTree` and acting as the kernel would.

Nouns, from the ground up:

- `machine`: the document a machine is described by, checked;
- `tree`: directories, files with modes, links and device nodes; instantiated as they are looked at;
- `uevents`: what the kernel tells listeners; `faults`: what a test or a person makes go wrong;
- `devices`: what the driver core makes of a device directory (class links, `dev/char`, nodes in /dev);
- `drm` and `vfio`: what a driver makes when it binds; `drivers`: who may bind to what;
- `pci`: the bus, functions that come and go; `sriov`: VFs; `health`: wedged cards, survivability, PCIe errors;
- `attributes`: the table of files whose write does something;
- `kernel`: `SimKernel`, which is all of them behind the seam.

Synchronous and free of I/O, clocks and threads: how to sleep and how to lock are handed in.
"""
