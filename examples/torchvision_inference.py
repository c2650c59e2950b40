"""torchvision's documented use of a segmentation model, with only the import changed: load, preprocess, infer,
and look at the probability of one class."""

from pathlib import Path

from torchvision.io import decode_image
from torchvision.transforms.functional import to_pil_image

from pixelwise.models import FCN_ResNet50_Weights, fcn_resnet50  # was: torchvision.models.segmentation

img = decode_image(str(Path("dog.jpg")))

# 1: the network with its best weights
weights = FCN_ResNet50_Weights.DEFAULT
model = fcn_resnet50(weights=weights)
model.eval()

# 2: the preprocessing that belongs to them
preprocess = weights.transforms()
batch = preprocess(img).unsqueeze(0)

# 3: logits, probabilities, and those of the dog
prediction = model(batch)["out"]
normalized_masks = prediction.softmax(dim=1)
class_to_idx = {cls: idx for (idx, cls) in enumerate(weights.meta["categories"])}
mask = normalized_masks[0, class_to_idx["dog"]]
to_pil_image(mask).save("dog_mask.png")
