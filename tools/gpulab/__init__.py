"""A fake machine behind the kernel's own interfaces: its files mounted by FUSE, its uevents on netlink, for the shipped programs to run on.

`dra.sim_kernel` says how the machine behaves; here it gets file descriptors, errno and writes that block. What cannot be had this way is
ioctl(2) on device nodes: they are seen with their numbers and permissions, and opening one answers EACCES.

    needs       what this machine must have
    namespaces  mounts, network and processes of a lab's own, which end with it
    entries     the fake kernel, and what stat(2) wants to know of it
    filesystem  its tree as FUSE serves it
    uevents     its events as the kernel and udevd send them
    overflow    and as they are lost
    machine     one machine, served
"""
