"""docs/hardware.md: which GPUs are known, from dra/models.json and dra/vf_profiles.json."""

from __future__ import annotations

from collections.abc import Sequence

from dra import models, vf_profiles
from dra.models import Model

HEAD = """# Hardware

Made from the code by `tools/schemas`; do not edit. The tables it is made from, `dra/models.json` and `dra/vf_profiles.json`, name the
sources of each figure.

**None of it was seen on real silicon.** Everything was tried on simulated machines only, made after the kernel's sources. Reports
of real ones are welcome.

A function of Intel's that is not in the table is offered all the same when it is bound to i915 or xe; its model and family are `Unknown`
then, and without a table of its VFs only `fair-share` can cut it.
"""

FAMILIES = """
## Families

- *VFs*: the most that a card's firmware serves; `—` where nobody has published it. The kernel's `sriov_totalvfs` counts then, and where it
  is lower, if the driver can make VFs at all ([what that takes](operating.md#vfs)).
- *memory from*: who tells the size that is published. `query` is the DRM memory query of i915 or xe, for which the plugin must open the
  GPU's device nodes; where it gives no answer, prelim i915's `lmem_total_bytes` or xe's debugfs do. GPUs without memory of their own
  publish none.

| family | architecture | models | PCI ids | kernel driver | VFs | memory from | seen on real silicon |
|---|---|---|---|---|---|---|---|
"""

PROFILES = """
## Profiles of VFs

Names that `sriov.layouts` takes, with the memory of one VF; the second figure holds where the card keeps error correction codes in it.
`fair-share` is for every card that can make VFs: the kernel divides it.

| profile | cards | VFs that fill a card | memory of one | with ECC |
|---|---|---|---|---|
"""


def page() -> str:
    by_family: dict[str, list[Model]] = {}
    for model in models.table().models.values():
        by_family.setdefault(model.family, []).append(model)
    discrete = {name for name, members in by_family.items() if not all(member.integrated for member in members)}
    ordered = sorted(by_family, key=lambda name: (name not in discrete, name))
    text = HEAD + FAMILIES + "".join(_family(name, by_family[name]) for name in ordered)
    return text + PROFILES + "".join(map(_profiles, vf_profiles.table()))


def _family(name: str, members: Sequence[Model]) -> str:
    integrated = all(member.integrated for member in members)
    cells = [
        name,
        _listed(member.architecture for member in members),
        _listed(member.model for member in members),
        str(len(members)),
        _listed(member.kmd for member in members),
        _listed(None if member.max_vfs is None else f"{member.max_vfs:2}" for member in members),
        "none of its own" if integrated else "query",
        "no",
    ]
    return f"| {' | '.join(cells)} |\n"


def _listed(values: object) -> str:
    found = sorted({value.strip() for value in values if value})  # type: ignore[attr-defined]
    return ", ".join(found) or "—"


def _profiles(family: vf_profiles.Family) -> str:
    known = models.table().models
    cards = ", ".join(sorted({known[device].model or device for device in family.devices}))
    return "".join(
        f"| `{one.name}` | {cards} | {one.per_card} | {_mebibytes(one.memory_bytes)} | {_mebibytes(one.memory_ecc_bytes)} |\n"
        for one in family.profiles
    )


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"
