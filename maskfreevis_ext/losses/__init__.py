"""Loss terms, one or a few to a file; they import ``maskfreevis_ext.ops`` only.

Every module of this folder is imported here, so that a term is registered by being there.
"""

import importlib
import pkgutil

# The standard terms first, in the order in which they are logged.
_FIRST = ["classification", "mask", "box"]

for _name in _FIRST + sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
