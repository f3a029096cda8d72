"""The version of this package; a test holds it against the installed one."""

from __future__ import annotations

VERSION = "0.1.0"
