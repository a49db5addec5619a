"""Forward and backward pass of the whole model, and of its criterion alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.product import (  # first: importing it chooses Detectron2
    REFERENCE_MODE,
    Outputs,
    build_criterion,
    layers_of,
    loss_weights,
    model_config,
    pairs_of,
)

# isort: split
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from benchmarks.compare import loss_differences
from benchmarks.literal.network import use_literal_network
from benchmarks.literal.step import LiteralCriterion, total
from benchmarks.measure import Figures, Side, measure, progress
from benchmarks.options import Options
from benchmarks.phases import (
    Phases,
    clock_of,
    count_flops,
    cut_graph,
    matrix_speed,
    medians,
    phase_table,
    speed_note,
    step_phases,
)
from benchmarks.report import Result
from benchmarks.scene import Scene, make_scene, note_pass_rates, pass_rates
from maskfreevis_ext.engine.optimizer import build_optimizer, parameter_groups
from maskfreevis_ext.precision import AMP_DTYPES

LITERAL_START = (
    "uint8 frames; literal criterion, masks of all outputs kept, attention masks of every head, "
    "grid_sample attention, frozen batch norm unfused, float32"
)
DENSE_KEY = "MODEL.MASKFREE.DENSE_MASK_GRADIENTS"


def run(options: Options) -> Result:
    """Measure a training step.

    Raises:
        ConfigError: An option or a config key does not fit.
        DataError: A loss is not finite.
    """
    defaults = ("MODEL.MASKFREE.TEMPORAL.PAIRS", options.pairs)
    config = partial(model_config, options, defaults=defaults)
    cfg = config()
    scene = make_scene(options.replace(classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES))
    batch = as_batch(scene)
    model = build_model(cfg).train()
    literal_criterion = LiteralCriterion(
        loss_weights(cfg), pairs_of(options), cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS
    )
    literal_model = build_literal(config(DENSE_KEY, "True"), model, literal_criterion)
    models, sides = _step_sides(literal_model, model, batch, options)
    if options.multimask:
        with_head = build_model(config("MODEL.MULTIMASK.ENABLED", "True")).train()
        start = "uint8 frames; with the multimask head"
        sides.append(step_side("ours, multimask", start, with_head, batch, "ours"))
    our_criterion = model.get_submodule("criterion")
    with captured_call(our_criterion) as our_call:
        model(batch)
    with captured_call(literal_criterion) as their_call:
        literal_model(batch)
    assert their_call.outputs["pred_masks"].requires_grad, f"{DENSE_KEY} has no effect"
    sides += [
        criterion_side("literal criterion", literal_criterion, their_call),
        criterion_side("our criterion", our_criterion, our_call, "literal criterion"),
    ]
    figures = measure(sides, options)
    comparable = build_criterion(config(*REFERENCE_MODE))
    layers = layers_of(our_call.outputs)
    literal_criterion.matches = comparable.matcher(layers, our_call.targets, scene.image_size)
    differences = _differences(
        comparable, our_call, literal_criterion, partial(literal_model, batch)
    )
    notes_of_phases, phases = _phases(models, batch, cfg, options)
    rates = pass_rates(scene, pairs_of(options))
    notes, details = _summary(figures, sum(p.nbytes for p in model.parameters()))
    notes.append(note_pass_rates(rates))
    details |= {"pass_rates": rates, **phases}
    return Result(sides, figures, differences, details, notes_of_phases + notes)


def _step_sides(
    literal: nn.Module, model: nn.Module, batch: list[dict[str, Any]], options: Options
) -> tuple[dict[str, nn.Module], list[Side]]:
    """The model of each side, by name, and the sides."""
    models = {"literal": literal, "ours": model}
    sides = [
        step_side("literal", LITERAL_START, literal, batch),
        step_side("ours", "uint8 frames", model, batch, "literal"),
    ]
    if options.dtype != "float32":
        name = f"ours, {options.dtype}"
        models[name] = model
        start = f"uint8 frames; mixed precision with {options.dtype}"
        sides.append(step_side(name, start, model, batch, "literal", options.dtype))
    return models, sides


def _summary(
    figures: dict[str, Figures], parameter_bytes: int
) -> tuple[list[str], dict[str, object]]:
    """Share of the criterion in the step, and the memory together with the parameters.

    Returns:
        Lines to print, and the same for the JSON.
    """
    shares = _criterion_shares(figures)
    ours, literal = (figures[n].peak_extra_bytes + parameter_bytes for n in ("ours", "literal"))
    notes = [
        f"the criterion takes {share:.1%} of the step ({name})" for name, share in shares.items()
    ]
    notes.append(
        f"either side also holds parameters of {parameter_bytes / 2**20:.1f} MiB; with them ours "
        f"takes {ours / literal:.2f} of the memory of the literal step"
    )
    details: dict[str, object] = {
        "criterion_share": shares,
        "parameter_bytes": parameter_bytes,
        "memory_share_with_parameters": ours / literal,
    }
    return notes, details


def build_literal(cfg: CfgNode, model: nn.Module, criterion: nn.Module) -> nn.Module:
    """A model with the weights of another one, literal structure and another criterion."""
    literal = build_model(cfg).train()
    literal.load_state_dict(model.state_dict())
    literal.set_submodule("criterion", criterion)
    use_literal_network(literal)
    return literal


def step_side(
    name: str,
    start: str,
    model: nn.Module,
    batch: list[dict[str, Any]],
    baseline: str = "",
    dtype: str = "float32",
) -> Side:
    """Forward and backward pass of a model."""
    forward = partial(step_losses, model, batch, dtype)
    return Side(name, start, lambda: total(forward()), list(model.parameters()), baseline)


def step_losses(model: nn.Module, batch: list[dict[str, Any]], dtype: str) -> dict[str, Tensor]:
    """Losses of a batch, in mixed precision unless ``dtype`` is "float32"."""
    device = next(model.parameters()).device.type
    with torch.autocast(device, AMP_DTYPES.get(dtype), enabled=dtype != "float32"):
        losses: dict[str, Tensor] = model(batch)
    return losses


def _phases(
    models: dict[str, nn.Module], batch: list[dict[str, Any]], cfg: CfgNode, options: Options
) -> tuple[list[str], dict[str, object]]:
    """Measure the phases of each model, with the update of its weights.

    The learning rate is zero, so that the sides stay equal.
    """
    device = torch.device(options.device)
    runs: dict[str, Callable[[Callable[[], float]], dict[str, float]]] = {}
    dtypes = dict.fromkeys(models, "float32")
    if options.dtype != "float32":
        dtypes[f"ours, {options.dtype}"] = options.dtype
    for name, model in models.items():
        forward = partial(step_losses, model, batch, dtypes[name])
        update = _literal_update(model, cfg) if name == "literal" else _update(model, cfg)
        runs[name] = partial(step_phases, forward, model, update)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for index in range(-min(options.warmup, 1), options.rounds):
        for name, run_phases in runs.items():
            progress(f"phases, round {index + 1}: {name}")
            spent = run_phases(clock_of(device, options.clock))
            if index >= 0:
                rounds[name].append(spent)
    found = {n: Phases(medians(rounds[n]), count_flops(runs[n])) for n in models}
    speeds = {
        name: matrix_speed(device, AMP_DTYPES.get(name, torch.float32), options.clock)
        for name in dict.fromkeys(dtypes.values())
    }
    notes = [speed_note(speeds)]
    notes += [phase_table(name, found[name], speeds[dtypes[name]]) for name in found]
    whole = {name: sum(phases.seconds.values()) for name, phases in found.items()}
    notes += [
        f"step with optimizer, {name}: {seconds:.3f} s, {whole['literal'] / seconds:.2f} x"
        for name, seconds in whole.items()
    ]
    return notes, {
        "phases": {name: vars(phases) for name, phases in found.items()},
        "matrix_speed": speeds,
        "step_with_optimizer_s": whole,
    }


def _update(model: nn.Module, cfg: CfgNode) -> Callable[[], object]:
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    return optimizer.step


def _literal_update(model: nn.Module, cfg: CfgNode) -> Callable[[], object]:
    """Norm of all gradients, their clipping and AdamW, one pass after the other."""
    optimizer = torch.optim.AdamW(parameter_groups(model, cfg), lr=0.0, foreach=False)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    clip = cfg.SOLVER.CLIP_GRADIENTS

    def update() -> None:
        if clip.ENABLED:
            nn.utils.clip_grad_norm_(model.parameters(), clip.CLIP_VALUE, clip.NORM_TYPE)
        optimizer.step()

    return update


def _criterion_shares(figures: dict[str, Figures]) -> dict[str, float]:
    """Share of the step's time that the criterion takes, of both sides."""
    shares = {}
    for name, part in (("literal", "literal criterion"), ("ours", "our criterion")):
        seconds, whole = figures[part].forward_backward_s, figures[name].forward_backward_s
        assert seconds is not None
        assert whole is not None
        shares[name] = seconds / whole
    return shares


def as_batch(scene: Scene) -> list[dict[str, Any]]:
    """The scene in the form in which the data mappers return a batch."""
    height, width = scene.images.shape[-2:]
    batch: list[dict[str, Any]] = []
    for clip, (images, target) in enumerate(zip(scene.images, scene.targets, strict=True)):
        instances = []
        for t in range(len(images)):
            frame = Instances((height, width))
            frame.gt_classes = target["labels"]
            frame.gt_ids = target["ids"][:, t]
            frame.gt_boxes = Boxes(target["boxes"][:, t])
            instances.append(frame)
        batch.append(
            {
                "image": list(images),
                "instances": instances,
                "supervision": "box",
                "height": height,
                "width": width,
                "video_id": clip,
                "file_names": [f"{clip}/{t}.jpg" for t in range(len(images))],
                "frame_indices": list(range(len(images))),
            }
        )
    return batch


@dataclass
class Call:
    """The arguments of one call of a criterion, without the graph of the network before it.

    Attributes:
        outputs: The outputs of the decoder.
        leaves: The tensors in ``outputs`` that get gradients.
        targets: B dicts.
        named: The other arguments.
    """

    outputs: Outputs = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)
    targets: list[dict[str, Tensor]] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def captured_call(criterion: nn.Module) -> Iterator[Call]:
    """A ``Call`` that takes the arguments of the last call of a criterion inside the block."""
    call = Call()

    def keep(_: nn.Module, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        pairs: list[tuple[Tensor, Tensor]] = []
        call.outputs = cut_graph(values[0], pairs)
        call.leaves[:] = [leaf for _, leaf in pairs]
        call.targets, call.named = values[1], named

    handle = criterion.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield call
    finally:
        handle.remove()


def criterion_side(name: str, criterion: nn.Module, call: Call, baseline: str = "") -> Side:
    """The criterion of a step, from the outputs of the decoder."""

    def forward() -> Tensor:
        return total(criterion(call.outputs, call.targets, **call.named))

    start = "the outputs of the decoder, with gradients as in the step"
    return Side(name, start, forward, call.leaves, baseline)


@torch.no_grad()
def _differences(
    criterion: nn.Module,
    call: Call,
    literal: LiteralCriterion,
    literal_step: Callable[[], object],
) -> dict[str, float]:
    """Differences between the losses of our model and of the literal one, on the same matches.

    Args:
        criterion: Ours, with the config values of the reference.
        call: What our model gave its criterion.
        literal: The criterion of the literal model; its ``matches`` are used for both.
        literal_step: Runs the literal model.

    Raises:
        DataError: A loss is missing, or not finite.
    """
    with captured_call(literal) as their_call:
        literal_step()
    expected = literal(their_call.outputs, their_call.targets, **their_call.named)
    ours = criterion(call.outputs, call.targets, **call.named, matches=literal.matches)
    return loss_differences(ours, expected)
