"""The package's build: native libraries go into the wheel, which is then for this platform alone, and the commit."""

from __future__ import annotations

import os
import subprocess
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
        if version == "standard":  # an editable install finds its commit by itself
            build_data["artifacts"] += self._commit()
        left_out = os.environ.get("DOPANT_NATIVE") == "0"
        files = build_native.build(without="DOPANT_NATIVE was 0 at the build" if left_out else "")
        build_data["artifacts"] += [path.relative_to(self.root).as_posix() for path in files]
        note = files[-1].read_text(encoding="utf-8").strip()
        if len(files) == 1:
            self.app.display_warning(f"native library {note}; dopant computes with torch instead")
            return
        self.app.display_info(f"native library {note}")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # the libraries know nothing of Python: any version will do

    def _commit(self) -> list[str]:
        """The file that tells records which code they are of, as `find_commit` would; none without git."""
        name, made = "src/dopant/commit.txt", ("results", "docs", "README.md")
        file, unmade = Path(self.root, name), [f":(top,exclude){of}" for of in made]
        asked = (
            ["ls-files", "--error-unmatch", "hatch_build.py"],
            ["rev-parse", "HEAD"],
            ["status", "--porcelain", "--untracked-files=no", "--", ":/", *unmade],
        )
        try:
            _, commit, changes = (
                subprocess.run(["git", "-C", self.root, *words], capture_output=True, text=True, check=True).stdout
                for words in asked
            )
        except (OSError, subprocess.CalledProcessError):
            file.unlink(missing_ok=True)  # of an earlier build
            return []
        file.write_text(commit.strip() + (" changed" if changes else "") + "\n")
        return [name]
