"""torchvision's visualisation of semantic masks, with only the imports changed: argmax, one boolean mask a class,
all of them drawn over the picture."""

import torch
from torchvision.io import decode_image
from torchvision.transforms.functional import resize, to_pil_image

from pixelwise.draw import draw_segmentation_masks  # was: torchvision.utils
from pixelwise.models import FCN_ResNet50_Weights, fcn_resnet50  # was: torchvision.models.segmentation

weights = FCN_ResNet50_Weights.DEFAULT
transforms = weights.transforms(resize_size=None)
model = fcn_resnet50(weights=weights, progress=False).eval()

dogs = [resize(decode_image(name), [240, 320]) for name in ("dog.jpg", "dog2.jpg")]
batch = torch.stack([transforms(dog) for dog in dogs])
with torch.inference_mode():
    output = model(batch)["out"]

num_classes = output.shape[1]
class_map = output.argmax(1)
all_masks = class_map == torch.arange(num_classes)[:, None, None, None]  # (classes, batch, h, w)
for i, dog in enumerate(dogs):
    overlaid = draw_segmentation_masks(dog, masks=all_masks[:, i], alpha=0.6)
    to_pil_image(overlaid).save(f"dog_overlay_{i}.png")
