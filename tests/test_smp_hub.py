"""`push_to_hub`, the README of a saved model and the options of `from_pretrained`, beside SMP's; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from pixelwise import smp as ours
from pixelwise.errors import OutputError

theirs = pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
)


def made(side):
    torch.manual_seed(0)
    return side.Unet(
        "tu-test_resnet.r160_in1k", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8), classes=2
    ).eval()  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """huggingface_hub's client without a network: what it was asked for, and the files that it was given."""
    calls = []

    class Client:
        def __init__(self, token=None):
            calls.append(("client", {"token": token}))

        def create_repo(self, **options):
            calls.append(("create_repo", options))
            return SimpleNamespace(repo_id=options["repo_id"])

        def upload_folder(self, *, folder_path, **options):
            folder = Path(folder_path)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            calls.append(("upload_folder", options | {"files": files}))
            return f"https://hub.invalid/{options['repo_id']}/commit/1"

    for name in ("PIXELWISE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Client)
    return calls


def pushed(model, calls, push):
    calls.clear()
    url = push(model)
    (*asked, (_, upload)) = calls
    files = upload.pop("files")
    return url, asked, upload, files


@pytest.mark.parametrize(
    "push",
    [
        lambda model: model.push_to_hub(
            "me/streets", private=True, token="t", branch="next", commit_message="the first",
            model_card_kwargs={"dataset": "streets", "metrics": {"iou": 0.5}},
        ),
        lambda model: model.push_to_hub("streets"),
    ],
)  # fmt: skip
def test_a_model_is_pushed_to_the_hub_as_smp_does(hub, push):
    expected_url, expected_asked, expected_upload, expected_files = pushed(made(theirs), hub, push)
    url, asked, upload, files = pushed(made(ours), hub, push)
    assert (url, asked, upload) == (expected_url, expected_asked, expected_upload)
    assert set(files) == set(expected_files) == {"README.md", "config.json", "model.safetensors"}
    said, expected = (json.loads(each["config.json"]) for each in (files, expected_files))
    assert {key: said[key] for key in expected if key != "encoder_weights"} == {
        key: value for key, value in expected.items() if key != "encoder_weights"
    }
    for word in (b"streets", b'"iou": 0.5'):
        assert (word in files["README.md"]) == (word in expected_files["README.md"])


def test_save_pretrained_pushes_under_the_folders_name_and_gives_the_url(hub, tmp_path):
    found = {}
    for name, side in (("theirs", theirs), ("ours", ours)):
        folder = tmp_path / name / "streets"
        url = made(side).save_pretrained(folder, dataset="streets", push_to_hub=True, private=True)
        found[name] = url, [(what, {k: v for k, v in how.items() if k != "files"}) for what, how in hub]
        hub.clear()
    assert found["ours"] == found["theirs"]
    assert made(ours).save_pretrained(tmp_path / "alone") is None
    assert hub == []
    with pytest.raises(TypeError, match="no argument 'private' without push_to_hub=True"):
        made(ours).save_pretrained(tmp_path / "alone", private=True)
    with pytest.raises(TypeError, match="'data'; it takes dataset and metrics"):
        made(ours).push_to_hub("me/streets", model_card_kwargs={"data": "streets"})
    assert hub == []


def test_a_readme_is_written_where_there_is_none_and_kept_where_there_is_one(tmp_path):
    for name, side in (("theirs", theirs), ("ours", ours)):
        folder, model = tmp_path / name, made(side)
        model.save_pretrained(folder)
        assert "pipeline_tag: image-segmentation" in (folder / "README.md").read_text()
        (folder / "README.md").write_text("mine")
        if side is ours:
            with pytest.warns(UserWarning, match="README.md in .* stays as it is, without the data set"):
                model.save_pretrained(folder, dataset="streets")
        model.save_pretrained(folder)
        assert (folder / "README.md").read_text() == "mine"


def test_what_cannot_be_pushed_is_said_in_one_sentence(hub, monkeypatch):
    def refused(self, **options):
        raise PermissionError("401 unauthorised\nmore of it")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refused)
    with pytest.raises(OutputError, match=r"pushed to me/streets on the Hugging Face Hub: 401 unauthorised$"):
        made(ours).push_to_hub("me/streets")
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    with pytest.raises(OutputError, match="the network is switched off; unset PIXELWISE_OFFLINE"):
        made(ours).push_to_hub("me/streets")


def test_from_pretrained_takes_the_options_of_the_hub_and_a_device(tmp_path, monkeypatch):
    made(ours).save_pretrained(save_directory=tmp_path / "model")
    asked = {}
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **options: asked.update(options) or tmp_path / "model",
    )
    options = {
        "revision": "v1",
        "token": "t",
        "cache_dir": "cache",
        "force_download": True,
        "local_files_only": True,
    }
    model = ours.from_pretrained("me/streets", map_location="meta", **options)
    assert next(model.parameters()).device.type == "meta"
    assert {key: asked[key] for key in options} == options
    assert isinstance(ours.Unet.from_pretrained(tmp_path / "model", map_location="cpu"), ours.Unet)
