"""The package's build: the native libraries go into the wheel, and the wheel is then for this platform alone."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_native


class NativeBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel is packed, and before an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name what came out; nothing but the note where there is no compiler."""
        files = build_native.build()
        build_data["artifacts"] += [path.relative_to(self.root).as_posix() for path in files]
        note = files[-1].read_text().strip()
        if len(files) == 1:
            self.app.display_warning(f"native library {note}; dopant computes with torch instead")
            return
        self.app.display_info(f"native library {note}")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # the libraries know nothing of Python: any version will do
