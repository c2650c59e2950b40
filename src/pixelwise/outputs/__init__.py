"""Label maps to files of other trades and back: coco (JSON for detectors), geo (rasters and vectors of maps),
polygons (what both are made of). `reading.read_labels` is the way back from any of them.

Everything here takes a label map, a LabelSet and perhaps a Georeference; `Segmentation.save` is the front door.
"""
