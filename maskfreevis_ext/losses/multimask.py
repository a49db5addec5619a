"""Training losses of SAM 2: several mask hypotheses per object, of which only the best is trained.

Ravi et al., "SAM 2", 2024 (arXiv:2408.00714), appendix D; numbers checked against
facebookresearch/sam2 at 2b90b9f5. Shape letters: T frames, O objects of a batch, M hypotheses,
S prediction steps of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.reduce import mean_over_ranks

#: Keys of the lists in ``outs_batch``.
MASKS_KEY = "multistep_pred_multimasks_high_res"
IOUS_KEY = "multistep_pred_ious"
SCORES_KEY = "multistep_object_score_logits"

#: Names of the unweighted terms, and of their weighted sum.
LOSS_NAMES = ("loss_mask", "loss_dice", "loss_iou", "loss_class")
CORE_LOSS_NAME = "core_loss"


def sigmoid_focal_per_mask(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Focal loss of each mask, averaged over its pixels.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (arXiv:1708.02002), eq. 5.

    Args:
        logits: (O, M, H, W).
        targets: (O, 1, H, W), any dtype, values in [0, 1]; (O, M, H, W) works too.
        alpha: Weight of the foreground; the background has the weight 1 - alpha. < 0: no weights.
        gamma: Exponent of the modulating factor, >= 0.

    Returns:
        (O, M), >= 0, float32 at least.

    Example:
        >>> logits, target = torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2)
        >>> sigmoid_focal_per_mask(logits, target).round(decimals=3)
        tensor([[0.0430, 0.0430]])
    """
    return _focal(logits, targets, alpha, gamma).mean((-2, -1))


def dice_per_mask(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 <p, y> + 1) / (sum p + sum y + 1) of each mask over all its pixels.

    Args:
        logits: (O, M, H, W).
        targets: (O, 1, H, W), any dtype, values in [0, 1]; (O, M, H, W) works too.

    Returns:
        (O, M), in [0, 1), float32 at least.

    Example:
        >>> dice_per_mask(torch.full((1, 1, 2, 2), 99.0), torch.ones(1, 1, 2, 2))
        tensor([[0.]])
    """
    probs = at_least_float32(logits).sigmoid()
    targets = targets.to(probs.dtype)
    overlap = (probs * targets).sum((-2, -1))
    total = probs.sum((-2, -1)) + targets.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


@torch.no_grad()
def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask, thresholded at logit 0, with its target; without a gradient.

    Args:
        logits: (..., H, W), such as (O, M, H, W).
        targets: Broadcastable to ``logits``, such as (O, 1, H, W); any dtype, foreground > 0.

    Returns:
        (...), in [0, 1], float32 at least; 0 where both masks are empty.

    Example:
        >>> mask_iou(torch.tensor([[[[1.0, 1.0, -1.0]]]]), torch.tensor([[[[1, 0, 0]]]]))
        tensor([[0.5000]])
    """
    is_predicted, is_object = logits > 0, targets > 0
    overlap = (is_predicted & is_object).sum((-2, -1))
    union = is_predicted.sum((-2, -1)) + is_object.sum((-2, -1)) - overlap
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return overlap.to(dtype) / union.clamp(min=1).to(dtype)


def sigmoid_focal(
    logits: Tensor, targets: Tensor, alpha: float = -1.0, gamma: float = 0.0
) -> Tensor:
    """Focal loss of the object score of each object; plain BCE with the defaults.

    Args:
        logits: (O, 1).
        targets: (O, 1), any dtype, 1 where the object is in the frame.
        alpha: As in ``sigmoid_focal_per_mask``.
        gamma: As in ``sigmoid_focal_per_mask``.

    Returns:
        (O,), >= 0, float32 at least.

    Example:
        >>> sigmoid_focal(torch.zeros(1, 1), torch.ones(1, 1)).round(decimals=3)
        tensor([0.6930])
    """
    return _focal(logits, targets, alpha, gamma).mean(1)


def best_hypothesis(cost: Tensor) -> Tensor:
    """Index of the hypothesis with the lowest cost, for each object.

    Args:
        cost: (O, M), M >= 1.

    Returns:
        (O,), int64, in [0, M).

    Example:
        >>> best_hypothesis(torch.tensor([[0.3, 0.1, 0.2]]))
        tensor([1])
    """
    return cost.detach().argmin(1)


class MultiStepMultiMasksAndIous(nn.Module):
    """SAM 2's loss over frames, prediction steps and mask hypotheses.

    Of the M masks of a prediction only the one with the lowest ``weight["loss_mask"] * focal +
    weight["loss_dice"] * dice`` is trained; in a frame without the object only its score is
    trained. Terms are summed over objects, steps and frames and divided by the mean number of
    objects per rank. The module has no parameters and no state.
    """

    def __init__(
        self,
        weight_dict: Mapping[str, float],
        focal_alpha: float = 0.25,
        focal_gamma: float = 2,
        supervise_all_iou: bool = False,
        iou_use_l1_loss: bool = False,
        pred_obj_scores: bool = False,
        focal_gamma_obj_score: float = 0.0,
        focal_alpha_obj_score: float = -1,
    ) -> None:
        """Keep the settings. Defaults are those of SAM 2's class; its training sets the flags True.

        Args:
            weight_dict: Weights of ``core_loss`` by name: loss_mask, loss_dice, loss_iou, and
                optionally loss_class (0 if missing). Not modified.
            focal_alpha: Weight of the foreground in the mask loss; < 0: no weights.
            focal_gamma: Exponent of the mask loss.
            supervise_all_iou: Train the predicted IoUs of all M masks. False: of the best one only.
            iou_use_l1_loss: Absolute error of the predicted IoU. False: squared error.
            pred_obj_scores: Outputs have object scores. False: every object counts as present.
            focal_gamma_obj_score: Exponent of the loss of the object score.
            focal_alpha_obj_score: Weight of present objects in that loss; < 0: no weights.

        Raises:
            ValueError: A required weight is missing.
        """
        super().__init__()
        self.weight_dict = {"loss_class": 0.0, **weight_dict}
        missing = [name for name in LOSS_NAMES if name not in self.weight_dict]
        if missing:
            raise ValueError(f"weight_dict has {sorted(weight_dict)}; add {', '.join(missing)}.")
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.supervise_all_iou = supervise_all_iou
        self.iou_use_l1_loss = iou_use_l1_loss
        self.pred_obj_scores = pred_obj_scores
        self.focal_gamma_obj_score = focal_gamma_obj_score
        self.focal_alpha_obj_score = focal_alpha_obj_score

    def forward(
        self,
        outs_batch: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        targets_batch: Tensor,
        *,
        num_objects: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            outs_batch: T dicts, one per frame, with lists over the S steps of that frame:
                ``multistep_pred_multimasks_high_res`` of mask logits (O, M, H, W),
                ``multistep_pred_ious`` (O, M), and with ``pred_obj_scores``
                ``multistep_object_score_logits`` (O, 1). S may differ between frames, M between
                steps. Or one dict with the same names, whose lists run over the T frames, with
                one step per frame. Any floating dtype.
            targets_batch: Masks of the objects, (T, O, H, W), bool or foreground > 0; empty where
                the object is absent from the frame.
            num_objects: Normaliser, for callers who know the number of objects of all ranks;
                default: mean of O over the ranks. Values below 1 count as 1.

        Returns:
            Unweighted ``loss_mask``, ``loss_dice``, ``loss_iou``, ``loss_class``, and
            ``core_loss``, their weighted sum. Scalars, float32 at least. 0 with a gradient path to
            every output when O == 0.

        Raises:
            ValueError: Shapes disagree (the message gives both), a list is missing, or
                ``weight_dict`` names a term that is not computed here.
        """
        unknown = [name for name in self.weight_dict if name not in LOSS_NAMES]
        if unknown:
            raise ValueError(
                f"weight_dict has a weight for {', '.join(unknown)}, which is not computed here; "
                f"the terms are {', '.join(LOSS_NAMES)}."
            )
        names = (MASKS_KEY, IOUS_KEY) + (SCORES_KEY,) * self.pred_obj_scores
        steps = [
            self._step_losses(targets_batch[frame], *outputs)
            for frame, outputs in _iterate_steps(outs_batch, targets_batch, names)
        ]
        # every rank must reach this line, even without objects: the mean is a collective operation
        count = _normalizer(num_objects, targets_batch.shape[1], steps[0][0].device)
        losses = {
            name: torch.stack(terms).sum() / count
            for name, terms in zip(LOSS_NAMES, zip(*steps, strict=True), strict=True)
        }
        core = torch.zeros_like(losses["loss_mask"])
        for name, weight in self.weight_dict.items():
            if weight != 0:  # 0 times an infinite term would be NaN
                core = core + weight * losses[name]
        return {**losses, CORE_LOSS_NAME: core}

    def _step_losses(
        self, targets: Tensor, masks: Tensor, ious: Tensor, scores: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mask, Dice, IoU and class term of one prediction, summed over the objects.

        Args:
            targets: (O, H, W).
            masks: (O, M, H, W).
            ious: (O, M).
            scores: (O, 1); None: all objects are present.
        """
        if len(targets) == 0:
            outputs = [masks, ious] if scores is None else [masks, ious, scores]
            zero = torch.stack([at_least_float32(output).sum() for output in outputs]).sum() * 0
            return zero, zero, zero, zero
        targets = targets[:, None]
        iou_error = self._iou_error(masks, ious, targets)  # (O, M)
        if masks.shape[1] > 1:
            index = self._find_best(masks, targets)
            masks = masks[torch.arange(len(index), device=index.device), index][:, None]
            if self.supervise_all_iou:
                iou_error = iou_error.mean(1, keepdim=True)
            else:
                iou_error = iou_error.gather(1, index[:, None])
        focal = sigmoid_focal_per_mask(masks, targets, self.focal_alpha, self.focal_gamma)
        dice = dice_per_mask(masks, targets)
        if scores is None:
            return focal.sum(), dice.sum(), iou_error.sum(), focal.new_zeros(())
        is_present = (targets > 0).any(-1).any(-1)  # (O, 1)
        class_loss = sigmoid_focal(
            scores, is_present, self.focal_alpha_obj_score, self.focal_gamma_obj_score
        )
        sums = [(term * is_present).sum() for term in (focal, dice, iou_error)]
        return sums[0], sums[1], sums[2], class_loss.sum()

    @torch.no_grad()
    def _find_best(self, masks: Tensor, targets: Tensor) -> Tensor:
        """Index of the mask to train, (O,).

        The losses of all M masks are computed without a graph, and that of the best mask once more
        with a graph: so activations are kept for one mask per object instead of M.
        """
        focal = sigmoid_focal_per_mask(masks, targets, self.focal_alpha, self.focal_gamma)
        dice = dice_per_mask(masks, targets)
        weight = self.weight_dict
        return best_hypothesis(weight["loss_mask"] * focal + weight["loss_dice"] * dice)

    def _iou_error(self, masks: Tensor, ious: Tensor, targets: Tensor) -> Tensor:
        """Error of the predicted IoUs, (O, M); its gradient does not reach the masks."""
        error = at_least_float32(ious) - mask_iou(masks, targets)
        return error.abs() if self.iou_use_l1_loss else error.square()


def _focal(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of every element of ``logits``; ``targets`` is broadcast to their shape."""
    logits = at_least_float32(logits)
    targets = targets.to(logits.dtype)
    # softplus(-x) y + softplus(x) (1 - y) = softplus(x) - x y
    loss = F.softplus(logits) - logits * targets
    if gamma != 0:
        wrong = logits.sigmoid() * (1 - 2 * targets) + targets  # 1 - p_t
        if gamma < 1:  # the power has no finite derivative at 0
            wrong = wrong.clamp(min=torch.finfo(wrong.dtype).tiny)
        loss = loss * wrong**gamma
    if alpha < 0:
        return loss
    return loss * (alpha * targets + (1 - alpha) * (1 - targets))


def _normalizer(num_objects: Tensor | float | None, num_local: int, device: torch.device) -> Tensor:
    """Divisor of the summed losses: the number of objects per rank, >= 1."""
    if num_objects is not None:
        return torch.as_tensor(num_objects, device=device).clamp(min=1)
    return mean_over_ranks(torch.full((), float(num_local), device=device)).clamp(min=1)


def _iterate_steps(
    outs_batch: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    targets: Tensor,
    names: Sequence[str],
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield the frame index and the tensors ``names`` of every prediction; checks their shapes."""
    if targets.dim() != 4:
        raise ValueError(f"targets_batch: expected (T, O, H, W), got {tuple(targets.shape)}.")
    frames: list[Mapping[str, Any]]
    if isinstance(outs_batch, Mapping):
        lists = _lists_of(outs_batch, names, "outs_batch")
        frames = [{name: [lists[name][t]] for name in names} for t in range(len(lists[names[0]]))]
    else:
        frames = list(outs_batch)
    if len(frames) != len(targets) or not frames:
        raise ValueError(
            f"outs_batch has {len(frames)} frames, but targets_batch {tuple(targets.shape)} has "
            f"{len(targets)}; expected the same number, at least 1."
        )
    for frame, outputs in enumerate(frames):
        lists = _lists_of(outputs, names, f"frame {frame}")
        for step, tensors in enumerate(zip(*lists.values(), strict=True)):
            _check_shapes(dict(zip(names, tensors, strict=True)), targets, frame, step)
            yield frame, tensors


def _lists_of(
    outputs: Mapping[str, Any], names: Sequence[str], where: str
) -> dict[str, Sequence[Tensor]]:
    """The named lists; raises ValueError unless all exist, have the same length and an entry."""
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ValueError(f"{where} has {sorted(outputs)}; add {', '.join(missing)}.")
    lengths = {name: len(outputs[name]) for name in names}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"{where}: expected lists of one length, at least 1, got {lengths}.")
    return {name: outputs[name] for name in names}


def _check_shapes(tensors: dict[str, Tensor], targets: Tensor, frame: int, step: int) -> None:
    """Raise ValueError unless the shapes of masks, IoUs and scores fit ``targets``."""
    num_objects, height, width = targets.shape[1:]
    shape = tuple(tensors[MASKS_KEY].shape)
    if len(shape) != 4 or shape[1] == 0 or (shape[0], *shape[2:]) != (num_objects, height, width):
        raise ValueError(
            f"frame {frame}, step {step}: {MASKS_KEY} is {shape}, expected "
            f"({num_objects}, M, {height}, {width}) for targets_batch {tuple(targets.shape)}."
        )
    for name, expected in ((IOUS_KEY, shape[:2]), (SCORES_KEY, (num_objects, 1))):
        if name in tensors and tuple(tensors[name].shape) != expected:
            raise ValueError(
                f"frame {frame}, step {step}: {name} is {tuple(tensors[name].shape)}, expected "
                f"{expected} for {MASKS_KEY} {shape}."
            )
