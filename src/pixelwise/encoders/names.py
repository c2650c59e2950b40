"""Names of encoders: those of segmentation_models.pytorch (SMP), and what each is here. Importing this brings no torch.

Every name of SMP 0.6 works. A name that SMP does not have is timm's. Where both have it ("resnet50", "vgg16",
"dpn68", ...) it is SMP's network, which has the keys of torchvision's or the authors' file; "tu-resnet50", SMP's way
to say it, or "timm/resnet50" is timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """kind: "staged" (a row of encoders/staged.py), "mit" or "timm". network: its name there.

    timm: the nearest network of timm, whose weights need not fit. weights: what can be fetched, SMP's tag and where it
    comes from: "torchvision:Enum.MEMBER", "timm:name.tag" or the address of a file. Torchvision's and the authors'
    weights are those SMP has; for EfficientNets timm's are the same networks trained the same way, from files that we
    could not compare with SMP's.
    """

    kind: str
    network: str
    timm: str
    weights: Mapping[str, str] = {}


def _resnets() -> dict[str, Row]:
    imagenet = {
        "resnet18": "ResNet18", "resnet34": "ResNet34", "resnet50": "ResNet50", "resnet101": "ResNet101",
        "resnet152": "ResNet152", "resnext50_32x4d": "ResNeXt50_32X4D", "resnext101_32x8d": "ResNeXt101_32X8D",
    }  # fmt: skip
    rows = {}
    for name in (
        *imagenet,
        "resnext101_32x4d",
        "resnext101_32x16d",
        "resnext101_32x32d",
        "resnext101_32x48d",
    ):
        weights = {}
        if name in imagenet:
            weights["imagenet"] = f"torchvision:{imagenet[name]}_Weights.IMAGENET1K_V1"
        if name in ("resnet18", "resnet50", "resnext50_32x4d") or name.startswith("resnext101_32x"):
            if name not in ("resnext101_32x32d", "resnext101_32x48d"):
                weights["ssl"] = f"timm:{name}.fb_ssl_yfcc100m_ft_in1k"
                weights["swsl"] = f"timm:{name}.fb_swsl_ig1b_ft_in1k"
            if name in ("resnext101_32x8d", "resnext101_32x16d", "resnext101_32x32d"):
                weights["instagram"] = f"timm:{name}.fb_wsl_ig1b_ft_in1k"
        timm = name if name != "resnext101_32x48d" else "resnext101_32x32d"
        rows[name] = Row("staged", name, timm, weights=weights)
    return rows


def _efficientnets() -> dict[str, Row]:
    rows = {}
    for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2"):
        timm = f"tf_efficientnet_{size}"
        noisy = {"noisy-student": f"timm:{timm}.ns_jft_in1k"} if size != "b8" else {}
        if size == "l2":
            noisy["noisy-student-475"] = f"timm:{timm}.ns_jft_in1k_475"
        others = {"advprop": f"timm:{timm}.ap_in1k"} if size != "l2" else {}
        if size not in ("b8", "l2"):
            others = {"imagenet": f"timm:{timm}.aa_in1k"} | others
            rows[f"efficientnet-{size}"] = Row("staged", f"efficientnet-{size}", timm, others)
        if size == "b8":
            others = {"imagenet": f"timm:{timm}.ra_in1k"} | others
        name = f"timm-efficientnet-{size}"
        rows[name] = Row("staged", name, timm, weights=others | noisy)
    for size in ("lite0", "lite1", "lite2", "lite3", "lite4"):
        name, timm = f"timm-tf_efficientnet_{size}", f"tf_efficientnet_{size}"
        rows[name] = Row("staged", name, timm, weights={"imagenet": f"timm:{timm}.in1k"})
    return rows


def _rows(source: str, names: Mapping[str, tuple[str, str]]) -> dict[str, Row]:
    """SMP's name: (timm's name, name and tag or member at the source)."""
    return {
        name: Row("staged", name, timm, {"imagenet": f"{source}:{weights}"} if weights else {})
        for name, (timm, weights) in names.items()
    }


_MIT_REVISIONS = {
    "mit_b0": "9ce53d104d92d75aabb00aae70677aaab67e7c84",
    "mit_b1": "a04bf4f13a549bce677cf79b04852e7510782817",
    "mit_b2": "868ab6f13871dcf8c3d9f90ee4519403475b65ef",
    "mit_b3": "32558d12a65f1daa0ebcf4f4053c4285e2c1cbda",
    "mit_b4": "3a3454e900a4b4f11dd60eeb59101a9a1a36b017",
    "mit_b5": "ced04d96c586b6297fd59a7a1e244fc78fdb6531",
}
"""Of the files at smp-hub on the Hugging Face Hub, which are the release's."""

SMP: dict[str, Row] = {
    **_resnets(),
    **_rows(
        "timm",
        {
            "dpn68": ("dpn68", "dpn68.mx_in1k"),
            "dpn68b": ("dpn68b", "dpn68b.mx_in1k"),
            "dpn92": ("dpn92", "dpn92.mx_in1k"),
            "dpn98": ("dpn98", "dpn98.mx_in1k"),
            "dpn107": ("dpn107", "dpn107.mx_in1k"),
            "dpn131": ("dpn131", "dpn131.mx_in1k"),
            "senet154": ("legacy_senet154", "legacy_senet154.in1k"),
            "se_resnet50": ("legacy_seresnet50", "legacy_seresnet50.in1k"),
            "se_resnet101": ("legacy_seresnet101", "legacy_seresnet101.in1k"),
            "se_resnet152": ("legacy_seresnet152", "legacy_seresnet152.in1k"),
            "se_resnext50_32x4d": ("legacy_seresnext50_32x4d", "legacy_seresnext50_32x4d.in1k"),
            "se_resnext101_32x4d": ("legacy_seresnext101_32x4d", "legacy_seresnext101_32x4d.in1k"),
            "xception": ("legacy_xception", "legacy_xception.tf_in1k"),
            "inceptionv4": ("inception_v4", "inception_v4.tf_in1k"),
            "inceptionresnetv2": ("inception_resnet_v2", "inception_resnet_v2.tf_in1k"),
            "timm-skresnet18": ("skresnet18", ""),
            "timm-skresnet34": ("skresnet34", ""),
            "timm-skresnext50_32x4d": ("skresnext50_32x4d", ""),
        },
    ),
    **_rows(
        "torchvision",
        {
            **{
                f"vgg{depth}{bn}": (f"vgg{depth}{bn}", f"VGG{depth}{bn.upper()}_Weights.IMAGENET1K_V1")
                for depth in (11, 13, 16, 19)
                for bn in ("", "_bn")
            },
            **{
                f"densenet{depth}": (f"densenet{depth}", f"DenseNet{depth}_Weights.IMAGENET1K_V1")
                for depth in (121, 161, 169, 201)
            },
            "mobilenet_v2": ("mobilenetv2_100", "MobileNet_V2_Weights.IMAGENET1K_V1"),
        },
    ),
    **_efficientnets(),
    **_rows(
        "timm",
        {f"mobileone_s{i}": (f"mobileone_s{i}", f"mobileone_s{i}.apple_in1k") for i in range(5)},
    ),
    **{
        name: Row("mit", name, "pvt_v2_" + name.removeprefix("mit_"), weights={
            "imagenet": f"https://huggingface.co/smp-hub/{name}.imagenet/resolve/{revision}/model.safetensors"
        })
        for name, revision in _MIT_REVISIONS.items()
    },
}  # fmt: skip
"""SMP's names of encoders, without those that begin with "tu-"."""

OLD_TIMM = ("regnet", "res2", "resnest", "mobilenetv3", "gernet")
"""What SMP once called "timm-..." and now reads as "tu-..."."""


def resolve(name: str) -> Row:
    """What `name` is here. A name that no table has is taken for timm's; whether timm has it, is not looked at."""
    if name in SMP:
        return SMP[name]
    for prefix in ("tu-", "timm/"):
        if name.startswith(prefix):
            return Row("timm", name.removeprefix(prefix), name.removeprefix(prefix))
    old = name.removeprefix("timm-")
    if old != name and old.startswith(OLD_TIMM):
        timm = f"tf_{old}" if old.startswith("mobilenetv3") else old
        return Row("timm", timm, timm)
    return Row("timm", name, name)
