"""U-Net with padded convolutions, as milesial/Pytorch-UNet has it."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, biomedical, by_name
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Score

ROWS: dict[str, Entry] = by_name(
    biomedical("unet:unet", labels=LabelSet.of(("background", "car")), parameters=31_037_698,
               multiply_adds=192_686_325_760, multiply_adds_hw=(512, 512),
               licence="GPL-3.0", origin="milesial/Pytorch-UNet, trained on Carvana",
               scores=(Score("Dice", 0.988423, "Carvana test", "as its readme says", "milesial/Pytorch-UNet, readme"),),
               notes=("Official files: unet_carvana_scale0.5_epoch2.pth, unet_carvana_scale1.0_epoch2.pth; scale 0.5 "
                      "and 1.",)),
    biomedical("unet:unet_bilinear", labels=LabelSet.of(("background", "foreground")), parameters=17_263_042,
               multiply_adds=159_937_200_128, multiply_adds_hw=(512, 512), origin="milesial/Pytorch-UNet"),
)  # fmt: skip
