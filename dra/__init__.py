"""The pure half of the driver: what is known about GPUs, claims and slices, and what to do next.

Nouns: a **KernelTree** is read into an **Inventory** of **Gpu**s; an Inventory becomes **slices**; a claim's **allocation** becomes a
**record** in the journal, and the record, compared with the **facts**, yields the next **step**.

Rules: standard library and msgspec only; synchronous; no clock, no I/O, no scheduler. Time, boot id, file contents and randomness
arrive as arguments. Nothing here imports `nursery_apps`; every arrow points this way.
"""
