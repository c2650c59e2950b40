"""What `make demo` runs: a real photograph (scikit-image's cat, CC0) to label map, overlay and legend."""

from pathlib import Path

from skimage import data

from pixelwise import Segmenter

out = Path("demo")
segmentation = Segmenter()(data.chelsea())
for name in ("labels.png", "overlay.png", "legend.png"):
    print("wrote", segmentation.save(out / f"cat.{name}", format=name.removesuffix(".png")).resolve())
print(", ".join(f"{name} {share:.0%}" for name, share in segmentation.areas().items()))
