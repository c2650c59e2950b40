"""Engines that a race meets: right, wrong, crashing and hanging ones. The trials of engines import this elsewhere."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from pixelwise.engines.onnxruntime import OnnxRuntimeEngine


class Right(OnnxRuntimeEngine):
    name = "right"


class Wrong(OnnxRuntimeEngine):
    name = "wrong"

    def load(self, model):
        loaded = super().load(model)
        return replace(loaded, run=lambda images: loaded.run(images) * 1.01 + 0.01 * images.mean())


class Crashing(OnnxRuntimeEngine):
    name = "crashing"

    def load(self, model):
        os.abort()


class Printing(OnnxRuntimeEngine):
    name = "printing"

    def load(self, model):
        os.write(1, b"a library of many words\n")
        return super().load(model)


class Hanging(OnnxRuntimeEngine):
    name = "hanging"

    def load(self, model):
        time.sleep(600)
