"""The running half of the driver: two Trio programs and the only effects.

`node` is the node plugin (DaemonSet), `controller` the allocator (Deployment). `edges` hold one foreign library or kernel interface a
file; only a `__main__` imports them. `app.py` of each program is its whole task tree on one screen; stop order is nesting.
"""
