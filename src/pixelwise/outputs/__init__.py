"""Label maps to files of other trades and back: coco (JSON for detectors), geo (rasters and vectors of maps),
polygons (what both are made of). formats is the table of all that can be written, and how; a format is a row there.
`reading.read_labels` is the way back.

Everything here takes a label map, a LabelSet and perhaps a Georeference; `Segmentation.save` is the front door.
"""
