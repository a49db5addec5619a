"""The loss terms of the training criterion; outside this folder they import ``ops`` only.

Importing this package imports every module of the folder, which registers the terms that the
modules define.
"""

import importlib
import pkgutil

# The standard terms first, in the order in which they are logged.
_FIRST = ["classification", "mask", "box"]

for _name in _FIRST + sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
