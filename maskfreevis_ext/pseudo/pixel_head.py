"""A small network per object, fitted to one clip from its boxes, on frozen features.

Each object of a clip has networks of 1x1 convolutions of its own; all are trained at once by
batched matrix products. The losses are those of BoxInst (arXiv:2012.02310), i.e. projection and
colour affinity, with what boxes say beyond: outside its box there is no object, and inside it there
is neither nothing nor only the object.

N objects, M networks of an object, K frames of a step, T frames, S x S cells, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.box import projection_loss
from maskfreevis_ext.ops.neighbors import pair_slices
from maskfreevis_ext.ops.similarity import spatial_edges
from maskfreevis_ext.pseudo.background import background_share
from maskfreevis_ext.pseudo.features import WindowFeatures
from maskfreevis_ext.pseudo.known import KnownMasks
from maskfreevis_ext.pseudo.windows import ObjectWindows

_OFFSETS = ((0, 2), (2, 0), (2, 2), (2, -2))
_OUTSIDE = 0.01  # cells of which the box covers no more are background


@dataclass(frozen=True)
class PixelHeadSettings:
    """How the pixel head is built and fitted.

    Attributes:
        grid: Cells of a side of a window.
        margin: Side of a window divided by the longer side of the box.
        components: Principal components of the backbone's features: of its coarsest map, which
            every other network of an object does not see, and of the other maps. The coarse map
            knows things, but blurs; networks with and without it make different mistakes.
        use_motion: Look at motion against the background.
        num_networks: Networks of an object, whose probabilities are averaged.
        width: Channels of the two hidden layers.
        steps: Steps of AdamW.
        frames_per_step: Frames of an object in a step.
        learning_rate: Its learning rate.
        weight_decay: Its weight decay.
        hard_cells: Background cells of a frame with the largest losses, which count once more ...
        hard_weight: ... with this weight.
        other_weight: Weight of background cells in the boxes of other objects, which may look like
            the object.
        pairwise_weight: Weight of the colour affinity.
        similarity: Least colour similarity of neighbours that have the same label.
        warmup_steps: Steps in which the weight of the colour affinity grows.
        area_weight: Weight of the share of the box that the object fills being in a range.
        least_area: Lower end of the range, of the first and of the last network of an object; the
            others lie evenly between.
        largest_area: Upper end of the range.
        fill_weight: Largest weight of "every cell of the box is the object" ...
        fill_below: ... which is used where less than this share of the cells left out of the box
            looks like the background, ...
        fill_ramp: ... in full where it is less by this much ...
        fill_checks: ... at these shares of the steps.
        seed: Of initial weights and frames.
    """

    grid: int = 96
    margin: float = 1.6
    components: tuple[int, int] = (16, 64)
    use_motion: bool = True
    num_networks: int = 4
    width: int = 32
    steps: int = 200
    frames_per_step: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    hard_cells: int = 225
    hard_weight: float = 0.5
    other_weight: float = 0.3
    pairwise_weight: float = 1.0
    similarity: float = 0.3
    warmup_steps: int = 40
    area_weight: float = 4.0
    least_area: tuple[float, float] = (0.35, 0.5)
    largest_area: float = 0.75
    fill_weight: float = 0.4
    fill_below: float = 0.55
    fill_ramp: float = 0.2
    fill_checks: tuple[float, ...] = (0.3, 0.6)
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """What the boxes say about cells.

    Attributes:
        profiles: (..., 2, S), shares of rows and columns that the box covers.
        in_frame: (..., S, S) bool.
        lab: (..., 3, S, S).
        others: Shares of the cells that boxes of other objects cover, (..., S, S).
    """

    profiles: Tensor
    in_frame: Tensor
    lab: Tensor
    others: Tensor

    @property
    def inside(self) -> Tensor:
        """Share of each cell that the box covers, (..., S, S)."""
        rows, cols = self.profiles.unbind(-2)
        return rows[..., :, None] * cols[..., None, :]

    def __getitem__(self, chosen: tuple[Tensor, Tensor]) -> Evidence:
        """The evidence of some objects and frames."""
        return Evidence(*(getattr(self, part.name)[chosen] for part in fields(self)))


class PixelNetworks:
    """N x M networks of three layers, D -> width -> width -> 1.

    Every other network of an object does not see the coarsest map, from the second on.

    Args:
        values: (N, T, D, S, S); only its scale and shape are used.
        num_coarse: The first of the D channels, which are those of the coarsest map.
        settings: Width and number.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        values: Tensor,
        num_coarse: int,
        settings: PixelHeadSettings,
        generator: torch.Generator,
    ) -> None:
        num_objects, _, channels = values.shape[:3]
        count, width = settings.num_networks, settings.width
        energy = values[:, ::4].float().square().mean((1, 3, 4)).sum(1).clamp(min=1e-6)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        first = draw(num_objects, count * width, channels) * (2 / energy).sqrt()[:, None, None]
        number = num_objects * count
        self.count = count
        self._sees = torch.ones(count, width, channels)
        self._sees[1::2, :, :num_coarse] = 0
        self.parameters = [
            first,
            torch.zeros(num_objects, count * width, 1),
            draw(number, width, width) * math.sqrt(2 / width),
            torch.zeros(number, width, 1),
            0.05 * draw(number, 1, width),
            torch.zeros(number, 1, 1),
        ]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, values: Tensor) -> Tensor:
        """Logits (M, N, K, S, S) of features (N, K, D, S, S)."""
        num_objects, num_frames, _, rows, cols = values.shape
        first, bias1, second, bias2, third, bias3 = self.parameters
        x = values.float().transpose(1, 2).flatten(2)  # (N, D, K * S * S)
        x = F.relu(torch.baddbmm(bias1, first * self._sees.flatten(0, 1), x))
        x = x.view(num_objects * self.count, -1, x.shape[-1])
        x = F.relu(torch.baddbmm(bias2, second, x))
        x = torch.baddbmm(bias3, third, x)
        return x.view(num_objects, self.count, num_frames, rows, cols).transpose(0, 1)


def box_losses(
    logits: Tensor,
    evidence: Evidence,
    settings: PixelHeadSettings,
    pairwise_factor: float,
    fill_weights: Tensor,
) -> Tensor:
    """Loss of each network and frame.

    Args:
        logits: (M, N, K, S, S).
        evidence: Of N objects and K frames.
        settings: Weights.
        pairwise_factor: Warm-up of the colour affinity, in [0, 1].
        fill_weights: Weight of "every cell of the box is the object", (N,).

    Returns:
        (M, N, K).
    """
    rows, cols = evidence.profiles.unbind(-2)
    inside = evidence.inside
    outside = ((inside <= _OUTSIDE) & evidence.in_frame).float()
    outside = outside * (1 - (1 - settings.other_weight) * evidence.others)
    background = F.softplus(logits) * outside
    loss = background.sum((-1, -2)) / outside.sum((-1, -2)).clamp(min=1)
    hardest = background.flatten(-2).topk(min(settings.hard_cells, outside[0, 0].numel())).values
    loss = loss + settings.hard_weight * hardest.mean(-1)
    loss = loss + projection_loss(logits.amax(-1), logits.amax(-2), rows, cols)
    if pairwise_factor > 0:
        affinity = _affinity_loss(logits, inside, evidence, settings.similarity)
        loss = loss + pairwise_factor * settings.pairwise_weight * affinity
    inside = inside * evidence.in_frame
    size = inside.sum((-1, -2)).clamp(min=1)
    filled = (F.softplus(-logits) * inside).sum((-1, -2)) / size
    share = (logits.sigmoid() * inside).sum((-1, -2)) / size
    least = torch.linspace(*settings.least_area, len(logits))[:, None, None]
    beyond = F.relu(least - share) + F.relu(share - settings.largest_area)
    return loss + fill_weights[:, None] * filled + settings.area_weight * beyond


def _affinity_loss(logits: Tensor, inside: Tensor, evidence: Evidence, similarity: float) -> Tensor:
    """-log of the probability that neighbours of like colour have the same label, (M, N, K)."""
    height, width = inside.shape[-2:]
    edges = spatial_edges(
        evidence.lab.flatten(0, 1)[:, None], _OFFSETS, similarity, evidence.in_frame.flatten(0, 1)
    )
    total, count = logits.new_zeros(()), logits.new_zeros(())
    for offset, edge in zip(_OFFSETS, edges, strict=True):
        here, there = pair_slices(offset, height, width)
        in_box = (inside[(..., *here)] > 0) | (inside[(..., *there)] > 0)
        weight = (edge[:, 0].unflatten(0, inside.shape[:2]) & in_box).float()
        a, b = logits[(..., *here)], logits[(..., *there)]
        disagreement = F.softplus(a) + F.softplus(b) - F.softplus(a + b)
        total = total + (disagreement * weight).sum((-1, -2))
        count = count + weight.sum((-1, -2))
    return total / count.clamp(min=1)


def fit_pixel_head(
    features: WindowFeatures,
    windows: ObjectWindows,
    settings: PixelHeadSettings,
    others: Tensor,
    known: KnownMasks | None = None,
    networks: PixelNetworks | None = None,
) -> tuple[Tensor, PixelNetworks]:
    """Fit the networks of all objects of a clip to their boxes, and apply them.

    Args:
        features: Of the windows.
        windows: Windows of objects that each have a box in at least one frame.
        settings: How to fit.
        others: Shares of the cells that boxes of other objects cover, (N, T, S, S).
        known: Masks that are known in some frames: hard labels there.
        networks: Networks of these objects to go on from, which are changed; None: new ones.

    Returns:
        Probabilities of the object in its windows, (N, T, S, S) float32, zero outside the frame;
        the mean over the networks of an object; and the networks. Equal seeds give equal results on
        one machine.

    Raises:
        ValueError: An object has no box at all.
    """
    present = _frames_with_boxes(windows)
    generator = torch.Generator().manual_seed(settings.seed)
    if networks is None:
        num_coarse = features.bases[0].num_coarse
        networks = PixelNetworks(features.values, num_coarse, settings, generator)
    optimizer = torch.optim.AdamW(
        networks.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    everything = Evidence(windows.profiles(), windows.inside_frame(), features.lab, others)
    number = torch.arange(len(present))[:, None]
    fill_weights = torch.zeros(len(present))
    checks = {int(share * settings.steps) for share in settings.fill_checks}
    for step in range(settings.steps):
        if step in checks:
            probabilities = _apply(networks, features.values)
            fill_weights = _fill_weights(
                features.values, probabilities, everything, settings, generator
            )
        draws = [
            frames[torch.randint(len(frames), (settings.frames_per_step,), generator=generator)]
            for frames in present
        ]
        if known is not None:
            known.put_into(draws, step)
        chosen = number, torch.stack(draws)  # (N, K)
        factor = min(1.0, step / max(settings.warmup_steps, 1))
        logits = networks(features.values[chosen])
        losses = box_losses(logits, everything[chosen], settings, factor, fill_weights)
        if known is not None:
            losses = known.losses(losses, logits, chosen)
        optimizer.zero_grad()
        losses.mean(-1).sum().backward()
        optimizer.step()
    return _apply(networks, features.values) * everything.in_frame, networks


def _frames_with_boxes(windows: ObjectWindows) -> list[Tensor]:
    """Frames in which each object has a box, int64."""
    present = [torch.from_numpy(row).nonzero()[:, 0] for row in windows.is_present]
    empty = [index for index, frames in enumerate(present) if not len(frames)]
    if empty:
        raise ValueError(f"expected a box in at least one frame of each object, got none: {empty}")
    return present


@torch.no_grad()
def _apply(networks: PixelNetworks, values: Tensor) -> Tensor:
    """Mean probabilities of the networks of each object, (N, T, S, S)."""
    return torch.cat([networks(part).sigmoid().mean(0) for part in values.split(1, dim=1)], 1)


def _fill_weights(
    values: Tensor,
    probabilities: Tensor,
    evidence: Evidence,
    settings: PixelHeadSettings,
    generator: torch.Generator,
) -> Tensor:
    """How much each object is to fill its box, (N,), by what its mask leaves out of it."""
    weights = []
    for index in range(len(values)):
        every_third = index, slice(None, None, 3)
        share = background_share(
            values[every_third],
            probabilities[every_third],
            evidence.inside[every_third],
            evidence.in_frame[every_third],
            generator,
        )
        lack = 0.0 if share is None else (settings.fill_below - share) / settings.fill_ramp
        weights.append(settings.fill_weight * min(max(lack, 0.0), 1.0))
    return torch.tensor(weights)
