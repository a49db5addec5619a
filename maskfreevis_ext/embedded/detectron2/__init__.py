"""Stand-in for Detectron2 0.6: the module paths and names that maskfreevis_ext uses, and no others.

Written for machines that have PyPI only. It follows the behaviour of Detectron2's public interface,
so that a config, a checkpoint, a seed and a log mean the same with either package; what it does not
have, it does not pretend to have.
"""

#: Version of the interface that is followed, with a local part that tells the two apart.
__version__ = "0.6+maskfreevis"
