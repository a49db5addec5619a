"""Orders in which samples are used."""

from detectron2.data.samplers.distributed_sampler import InferenceSampler, TrainingSampler

__all__ = ["InferenceSampler", "TrainingSampler"]
