"""A picture in, a label map out; python examples/first_mask.py PHOTO (or scikit-image's cat)."""

import sys

from skimage import data

from pixelwise import Segmenter

photo = sys.argv[1] if len(sys.argv) > 1 else data.chelsea()
segmentation = Segmenter()(photo)
print(segmentation.areas())
segmentation.save("first_mask.png")
segmentation.save("first_mask_overlay.jpg")
