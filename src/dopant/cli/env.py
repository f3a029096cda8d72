"""`dopant env`: what is installed, where it runs, and which path computes."""

from __future__ import annotations

from dopant.cli.guard import guarded
from dopant.cli.options import Json
from dopant.cli.output import show, show_json

EXAMPLE = "dopant env --json"


@guarded
def env(as_json: Json = False) -> None:
    """Show versions, the machine, and whether the native library serves.

    DOPANT_NATIVE in the environment forces one of its levels, or switches it off with 0.
    """
    from dopant.reporting.environment import environment

    found = environment()
    if as_json:
        show_json(found.to_json())
        return
    native = found.native
    lines = [f"{name} {value}" for name, value in found.versions.model_dump().items()]
    lines += [f"{name} {value or 'absent'} (optional)" for name, value in found.extras.items()]
    lines += [
        "",
        f"on {found.os}, {found.cpu}, {found.cores} cores",
        f"computes with {'torch' if native.active == 'torch' else f'the native library, {native.active}'}: "
        f"{native.reason}",
        f"native library {native.build}",
    ]
    show("\n".join(lines))
