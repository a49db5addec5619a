"""Pure tensor functions; they import torch only and keep no state."""
