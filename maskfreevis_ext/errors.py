"""Errors that a user can cause and fix; messages say what was expected, given, and where."""


class MaskFreeError(Exception):
    """Base class of this project's errors for users; command lines print only their message."""


class ConfigError(MaskFreeError, ValueError):
    """A config key has a value that cannot work, alone or together with another key."""


class DataError(MaskFreeError, ValueError):
    """An annotation file, image or video cannot be used; names the file, the id and the field."""


class CheckpointError(MaskFreeError, RuntimeError):
    """A weights file cannot be read, or is not allowed to be read (it would run code)."""


class NumericError(MaskFreeError, FloatingPointError):
    """NaN or Inf where a finite number is needed; names the tensor and the place."""
