"""Small questions to a Detectron2 provider, whose answers can be stored and compared.

``tests/golden/provider.json`` holds the answers of the real package, written by
``MASKFREEVIS_DETECTRON2=real python -m tests.provider.probe tests/golden/provider.json``
(Detectron2 0.6 at 02b5c4e, torch 2.13, Pillow 12.3, OpenCV 5). Any provider must give the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import maskfreevis_ext  # noqa: F401 - picks the provider

# isort: split
import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.engine import HookBase, SimpleTrainer, default_argument_parser, hooks
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from detectron2.modeling import build_backbone
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from detectron2.utils.events import CommonMetricPrinter, EventStorage, JSONWriter
from PIL import Image
from torch import nn

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer

_QUESTIONS: dict[str, Callable[[], Any]] = {}


def _ask(function: Callable[[], Any]) -> Callable[[], Any]:
    _QUESTIONS[function.__name__] = function
    return function


def _digest(array: np.ndarray | torch.Tensor) -> list:
    """Shape, and enough of the content to notice a difference."""
    values = np.asarray(array, dtype=np.float64).reshape(-1)
    weights = np.cos(np.arange(len(values)))
    return [list(np.shape(array)), float(values.sum()), float((values * weights).sum())]


def _image(height: int = 23, width: int = 31, channels: int = 3) -> np.ndarray:
    y, x, c = np.mgrid[:height, :width, :channels]
    return ((7 * y + 13 * x + 50 * c + y * x) % 256).astype(np.uint8)


def _tiny_cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3"]
    return cfg


@_ask
def command_line() -> dict[str, Any]:
    parser = default_argument_parser()
    words = "--config-file a.yaml --resume --num-gpus 2 --machine-rank 1 MODEL.DEVICE cpu".split()
    return vars(parser.parse_args(words))


@_ask
def resize_shortest_edge() -> list:
    np.random.seed(1)
    answers = []
    for style, lengths in (("choice", (8, 12, 16)), ("range", (9, 40))):
        augmentation = T.ResizeShortestEdge(lengths, max_size=30, sample_style=style)
        for shape in ((23, 31), (40, 17), (16, 16)):
            transform = augmentation.get_transform(_image(*shape))
            boxes = transform.apply_box(np.array([[1.0, 2.0, 10.0, 12.0], [0, 0, 5, 5]]))
            answers.append([_digest(transform.apply_image(_image(*shape))), boxes.tolist()])
    return answers


@_ask
def resize_of_other_types() -> list:
    transform = T.ResizeTransform(23, 31, 11, 40)
    return [
        _digest(transform.apply_image(_image(channels=1))),
        _digest(transform.apply_image(_image()[:, :, 0])),
        _digest(transform.apply_image(_image().astype(np.float32))),
        _digest(transform.apply_segmentation(_image()[:, :, 0])),
        _digest(transform.apply_segmentation(_image()[:, :, 0].astype(np.float32))),
        transform.apply_coords(np.array([[1, 2], [30, 20]], dtype=np.float32)).tolist(),
        transform.apply_coords(np.array([[1, 2], [30, 20]])).tolist(),
    ]


@_ask
def random_flip_and_crop() -> list:
    np.random.seed(2)
    augmentations = [
        T.RandomFlip(),
        T.RandomFlip(horizontal=False, vertical=True),
        T.RandomCrop("absolute_range", (8, 20)),
        T.RandomCrop("relative_range", (0.3, 0.5)),
        T.RandomCrop("absolute", (10, 100)),
        T.RandomCrop("relative", (0.5, 0.7)),
    ]
    answers = []
    for _ in range(4):
        for augmentation in augmentations:
            transform = augmentation.get_transform(_image())
            boxes = transform.apply_box(np.array([[2.0, 3.0, 9.0, 20.0]]))
            answers.append([_digest(transform.apply_image(_image())), np.asarray(boxes).tolist()])
    return answers


@_ask
def rotation() -> list:
    np.random.seed(4)
    answers = []
    for expand, center in ((True, None), (False, None), (False, [[0.4, 0.4], [0.6, 0.6]])):
        rotate = T.RandomRotation([-20, 20], expand=expand, center=center)
        transform = rotate.get_transform(_image())
        boxes = transform.apply_box(np.array([[2.0, 3.0, 9.0, 20.0]]))
        segmentation = transform.apply_segmentation((_image()[:, :, 0] > 100).astype(np.uint8))
        image = transform.apply_image(_image())
        answers.append([_digest(image), boxes.tolist(), _digest(segmentation)])
    chosen = T.RandomRotation([90], sample_style="choice")
    answers.append(_digest(chosen.get_transform(_image()).apply_image(_image())))
    return answers


@_ask
def box_modes() -> list:
    xywh, xyxy = BoxMode.XYWH_ABS, BoxMode.XYXY_ABS
    return [
        BoxMode.convert([1, 2, 3, 4], xywh, xyxy),
        list(BoxMode.convert((0.1, 0.2, 3.3, 4.4), xywh, xyxy)),
        BoxMode.convert(np.array([[1.5, 2, 3, 4]]), xyxy, xywh).tolist(),
        BoxMode.convert(torch.tensor([[1.5, 2, 3, 4]]), xyxy, xywh).tolist(),
        [int(mode) for mode in BoxMode],
    ]


@_ask
def boxes() -> list:
    some = Boxes([[0.0, 0, 10, 10], [5, 5, 5, 20], [-3, 2, 30, 8]])
    return [
        some.tensor.tolist(),
        some[1].tensor.tolist(),
        some[torch.tensor([True, False, True])].tensor.tolist(),
        [box.tolist() for box in some.to("cpu")],
        list(Boxes(torch.zeros(0)).tensor.shape),
    ]


@_ask
def masks() -> list:
    bits = BitMasks(_image()[:, :, :2].transpose(2, 0, 1) > 100)
    return [
        _digest(bits.tensor),
        list(bits.image_size),
        _digest(bits[1].tensor),
        _digest(bits[torch.tensor([False, True])].to("cpu").tensor),
        [int(mask.sum()) for mask in bits],
        len(bits),
    ]


@_ask
def read_image() -> list:
    """Frames as this project reads them, which Detectron2's ``read_image`` reads so too."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for orientation in (None, 1, 3, 6, 8):
            path = os.path.join(folder, "image.png")
            exif = Image.Exif()
            if orientation is not None:
                exif[274] = orientation
            Image.fromarray(_image()).save(path, exif=exif)
            answers += [_digest(read_frame(path, form)) for form in ("RGB", "BGR")]
    return answers


@_ask
def samplers() -> list:
    endless = TrainingSampler(7, seed=42)
    return [
        [index for index, _ in zip(endless, range(21), strict=False)],
        [index for index, _ in zip(TrainingSampler(3, shuffle=False), range(7), strict=False)],
        [list(InferenceSampler._get_local_indices(10, 4, rank)) for rank in range(4)],
        list(InferenceSampler(5)),
    ]


class _Mapper:
    """Picklable, and None for one sample."""

    def __call__(self, entry: dict[str, int]) -> dict[str, int] | None:
        return None if entry["id"] == 3 else {**entry, "double": 2 * entry["id"]}


@_ask
def loaders() -> list:
    data = [{"id": index, "width": 10 + index % 3, "height": 11} for index in range(9)]
    answers = []
    for workers in (0, 2):
        for grouping in (False, True):
            loader = build_detection_train_loader(
                list(data),
                mapper=None if workers else _Mapper(),
                sampler=TrainingSampler(len(data), seed=0),
                total_batch_size=2,
                aspect_ratio_grouping=grouping,
                num_workers=workers,
            )
            batches = [[e["id"] for e in b] for b, _ in zip(loader, range(8), strict=False)]
            answers.append(batches)
    cfg = get_cfg()
    cfg.SEED, cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 7, 3, 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    loader = build_detection_train_loader(cfg, mapper=_Mapper(), dataset=list(data))
    answers.append([[e["double"] for e in b] for b, _ in zip(loader, range(4), strict=False)])
    test = build_detection_test_loader(list(data), mapper=None, batch_size=4)
    answers.append([[entry["id"] for entry in batch] for batch in test])
    return answers


@_ask
def backbones() -> list:
    answers = []
    for depth, changes in (
        (18, {"NORM": "BN", "STRIDE_IN_1X1": False}),
        (50, {"OUT_FEATURES": ["res2", "res5"], "RES5_DILATION": 2}),
        (50, {"NORM": "GN", "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4, "OUT_FEATURES": ["res3"]}),
    ):
        cfg = _tiny_cfg()
        cfg.MODEL.RESNETS.DEPTH = depth
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
        for key, value in changes.items():
            cfg.MODEL.RESNETS[key] = value
        torch.manual_seed(0)
        backbone = build_backbone(cfg).eval()
        state = backbone.state_dict()
        names = hashlib.sha256(" ".join(state).encode()).hexdigest()
        trainable = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        with torch.no_grad():
            features = backbone(torch.arange(3 * 64 * 96.0).reshape(1, 3, 64, 96) / 1e4)
        shapes = {n: [s.channels, s.stride] for n, s in backbone.output_shape().items()}
        sums = {n: [list(f.shape), float(f.abs().mean())] for n, f in features.items()}
        answers.append([names, len(state), trainable, shapes, sums, backbone.size_divisibility])
    return answers


@_ask
def layers() -> list:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64 * 12).reshape(1, 64, 3, 4)
    answers = []
    for name in ("BN", "FrozenBN", "GN", "LN", ""):
        norm = get_norm(name, 64)
        layer = Conv2d(64, 64, 1, bias=norm is None, norm=norm, activation=torch.relu)
        answers.append([sorted(layer.state_dict()), layer(x).mean().item()])
    frozen = FrozenBatchNorm2d(64)
    frozen.running_var.fill_(4.0)
    frozen.running_mean.fill_(0.25)
    answers.append([frozen(x).sum().item(), frozen(x.clone().requires_grad_()).sum().item()])
    stack = nn.Sequential(nn.Conv2d(64, 64, 1), nn.Sequential(nn.BatchNorm2d(64)))
    converted = FrozenBatchNorm2d.convert_frozen_batchnorm(stack)
    answers.append([type(converted[1][0]).__name__, converted is stack])
    return answers


@_ask
def schedules() -> list:
    answers = []
    for name, method, rescale in (
        ("WarmupMultiStepLR", "linear", False),
        ("WarmupCosineLR", "linear", False),
        ("WarmupCosineLR", "constant", True),
        ("WarmupStepWithFixedGammaLR", "linear", False),
    ):
        cfg = get_cfg()
        cfg.SOLVER.LR_SCHEDULER_NAME = name
        cfg.SOLVER.WARMUP_METHOD = method
        cfg.SOLVER.RESCALE_INTERVAL = rescale
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 12, 3
        cfg.SOLVER.STEPS = (6, 9, 20)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        scheduler = build_lr_scheduler(cfg, optimizer)
        rates = []
        for _ in range(11):  # fvcore's gamma schedule has no value for the end itself
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        answers.append([rates, scheduler.state_dict()])
    return answers


@_ask
def gradient_clipping() -> list:
    answers = []
    for kind, limit in (("value", 0.5), ("norm", 1.0)):
        cfg = get_cfg()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = limit
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(parameters, lr=1.0))
        for parameter in parameters:
            parameter.grad = torch.linspace(-3, 4, len(parameter))
        optimizer.step()
        answers.append([type(optimizer).__name__, [p.tolist() for p in parameters]])
    return answers


@_ask
def events() -> list:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "metrics.json")
        writers = [JSONWriter(path, window_size=3), CommonMetricPrinter(10, window_size=3)]
        with EventStorage(2) as storage:
            for step, value in enumerate((5.0, 1.0, 3.0, 9.0, 2.0)):
                storage.iter = 2 + step
                storage.put_scalars(total_loss=value, loss_a=value / 2)
                storage.put_scalar("lr", 0.1 / (step + 1), smoothing_hint=False)
                storage.put_scalars(time=0.25, data_time=0.125)
                storage.put_scalar("[metric]x", step)
                if step % 2:
                    for writer in writers:
                        writer.write()
            for writer in writers:
                writer.write()
                writer.close()
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(level)
    return [rows, [" ".join(line.split()) for line in lines]]


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.norm(self.fc(batch))
        return {"loss_a": out.square().mean(), "loss_b": (out[:, 0] - 1).abs().mean()}


class _Counter(HookBase):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_train(self) -> None:
        self.calls.append("before_train")

    def after_backward(self) -> None:
        self.calls.append("after_backward")

    def after_step(self) -> None:
        self.calls.append(f"after_step {self.trainer.iter}")

    def after_train(self) -> None:
        self.calls.append(f"after_train {self.trainer.iter}")

    def state_dict(self) -> dict[str, int]:
        return {"calls": len(self.calls)}


@_ask
def training() -> list:
    torch.manual_seed(0)
    model = _Linear()
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(8, 3, generator=generator) for _ in range(10)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, data, optimizer)
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS = 6, 2, (4,)
    counter = _Counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = DetectionCheckpointer(model, folder, trainer=trainer)
        path = os.path.join(folder, "metrics.json")
        trainer.register_hooks(
            [
                hooks.IterationTimer(),
                hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)),
                hooks.PeriodicCheckpointer(checkpointer, 2),
                hooks.EvalHook(3, lambda: {"segm": {"AP": 1.5, "AP50": 2}}),
                counter,
                hooks.PeriodicWriter([JSONWriter(path)], period=2),
                None,
            ]
        )
        trainer.train(0, 6)
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        names = sorted(os.listdir(folder))
        saved = torch.load(os.path.join(folder, "model_0000003.pth"), weights_only=True)
        last = Path(folder, "last_checkpoint").read_text()
    for row in rows:
        for name in row:
            if name.endswith("time"):
                row[name] = 0
    layout = {key: sorted(value) for key, value in saved["trainer"].items() if key != "iteration"}
    weights = [p.tolist() for p in model.parameters()]
    return [rows, names, last, sorted(saved), layout, weights, counter.calls]


@_ask
def foreign_weights() -> list:
    import pickle

    answers = []
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = build_backbone(_tiny_cfg())
    shape = (64, 64, 3, 3)
    caffe2 = {
        "conv1_w": np.full((64, 3, 7, 7), 2.0, np.float32),
        "res_conv1_bn_s": np.full((64,), 3.0, np.float32),
        "res_conv1_bn_riv": np.full((64,), 5.0, np.float32),
        "res2_0_branch2a_w": np.full(shape, 4.0, np.float32),
        "res2_0_branch2a_bn_b": np.full((64,), 6.0, np.float32),
        "res2_1_branch2b_w_momentum": np.full(shape, 9.0, np.float32),
        "fc1000_w": np.zeros((2, 2), np.float32),
    }
    zoo = {
        "model": {
            "stem.conv1.weight": np.full((64, 3, 7, 7), 7.0, np.float32),
            "res3.0.shortcut.weight": np.full((128, 64, 1, 1), 8.0, np.float32),
            "res3.0.conv1.weight": np.zeros((2, 2), np.float32),
        },
        "__author__": "somebody",
        "matching_heuristics": True,
    }
    names = (
        "stem.conv1.weight",
        "stem.conv1.norm.weight",
        "stem.conv1.norm.running_var",
        "res2.0.conv1.weight",
        "res2.0.conv1.norm.bias",
        "res2.1.conv2.weight",
        "res3.0.shortcut.weight",
    )
    with tempfile.TemporaryDirectory() as folder:
        for content in (caffe2, {"blobs": caffe2}, zoo):
            path = os.path.join(folder, "weights.pkl")
            Path(path).write_bytes(pickle.dumps(content, protocol=2))
            rest = SafeCheckpointer(model).load(path)  # of the project: the real one runs pickles
            state = model.backbone.state_dict()
            answers.append([sorted(rest), [float(state[name].mean()) for name in names]])
        plain = {"backbone." + k: v + 1 for k, v in model.backbone.state_dict().items()}
        path = os.path.join(folder, "weights.pth")
        torch.save(plain, path)
        SafeCheckpointer(model).load(path)
        state = model.backbone.state_dict()
        answers.append([float(state[name].mean()) for name in names])
    return answers


@_ask
def instances() -> list:
    some = Instances((10, 20), gt_classes=torch.arange(3), names=["a", "b", "c"])
    names = some[1:].names
    some.remove("names")
    some.gt_boxes = Boxes(torch.arange(12.0).reshape(3, 4))
    selected = some[torch.tensor([True, False, True])]
    return [
        selected.gt_classes.tolist(),
        selected.gt_boxes.tensor.tolist(),
        names,
        len(some[1]),
        some[-1].gt_classes.tolist(),
        sorted(some.get_fields()),
        list(some.to("cpu").image_size),
    ]


def collect_answers() -> dict[str, Any]:
    """The answers of the provider in use, as JSON gives them back."""
    torch.set_num_threads(1)
    return json.loads(json.dumps({name: ask() for name, ask in _QUESTIONS.items()}))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(collect_answers(), indent=None, sort_keys=True))
