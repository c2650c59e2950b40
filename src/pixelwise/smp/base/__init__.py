"""SMP's base: the class of all models, heads, and the blocks that its decoders are made of."""

from pixelwise.decoders.smp_parts import ClassificationHead, SegmentationHead
from pixelwise.smp.base.modules import Attention, Conv2dReLU
from pixelwise.smp.derived import SegmentationModel

__all__ = ["Attention", "ClassificationHead", "Conv2dReLU", "SegmentationHead", "SegmentationModel"]
