"""`pixelwise init`: from what people have to a data set that training reads.

`sources` finds pictures and what labels them, `names` pairs them, `outlines` draws polygons, `reading` says what the
label maps' values mean, and `adopting` shows what it would do and writes it.
"""
