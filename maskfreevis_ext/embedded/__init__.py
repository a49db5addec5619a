"""Home of the stand-in for Detectron2.

This folder itself goes on ``sys.path`` (see ``maskfreevis_ext._provider``), so that ``import
detectron2`` finds the package beside this file. Do not import it as
``maskfreevis_ext.embedded.detectron2``: that would be a second copy with registries of its own.
"""
