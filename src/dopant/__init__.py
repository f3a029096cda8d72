"""dopant: language models many times smaller, by doped Kronecker products and the baselines they beat.

The public names stand in `__init__.pyi`. They are found when they are first used, so that `import dopant` and
`dopant --help` need no torch.
"""

import lazy_loader

from dopant.version import VERSION

__version__ = VERSION
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
