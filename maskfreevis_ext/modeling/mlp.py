"""A stack of linear layers."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from maskfreevis_ext.modeling.products import Linear


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        """Make the layers.

        Args:
            in_dim: Channels of the input.
            hidden_dim: Channels between the layers.
            out_dim: Channels of the output.
            num_layers: Linear layers.
        """
        super().__init__()
        dims = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(dims))

    def init_last(self, std: float = 0.0, bias: float = 0.0) -> None:
        """Initialise the last layer: normal weights (zeros for ``std`` 0), constant bias."""
        weight, constant = self.layers[-1].parameters()
        if std > 0:
            nn.init.normal_(weight, std=std)
        else:
            nn.init.zeros_(weight)
        nn.init.constant_(constant, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return self.layers[-1](x)
