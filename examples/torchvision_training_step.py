"""One training step with the auxiliary loss, as torchvision's reference does it, with only the import changed."""

import torch
from torch import nn

from pixelwise.models import deeplabv3_resnet50  # was: torchvision.models.segmentation

torch.manual_seed(0)
model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
image, target = torch.randn(2, 3, 65, 65), torch.randint(0, 5, (2, 65, 65))
target[:, :4] = 255

model.train()
output = model(image)
losses = {
    name: nn.functional.cross_entropy(logits, target, ignore_index=255) for name, logits in output.items()
}
loss = losses["out"] + 0.5 * losses["aux"]
optimizer.zero_grad()
loss.backward()
optimizer.step()
print(f"loss {loss.item():.4f}")
