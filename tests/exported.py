"""How far a network's ONNX export is from the network, at sizes other than the one it was traced at."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from pixelwise.export.onnx import trace


def largest_difference(network: nn.Module, traced_at: tuple[int, ...], *shapes: tuple[int, ...]) -> float:
    """Largest difference of `network.coarse` over all `shapes`, relative to the logits' range; all sizes dynamic."""

    program = trace(network.eval(), torch.rand(traced_at))
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for shape in shapes:
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = network.coarse(image).numpy()
        (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        assert got.shape == expected.shape
        worst = max(worst, float(np.abs(got - expected).max() / np.ptp(expected)))
    return worst
