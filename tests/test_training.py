"""The loop on tiny networks, and the data sets on folders drawn here."""

import ctypes
import dataclasses
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from crashing import squares
from pixelwise.datasets.opening import border_of, split_by_name
from pixelwise.datasets.sample import Sample
from pixelwise.decoders.compose import compose
from pixelwise.errors import InputError, PixelwiseError, UnknownNameError
from pixelwise.losses import cross_entropy, dice
from pixelwise.models.unet import UNet
from pixelwise.training.config import TrainConfig
from pixelwise.training.draws import Draws, class_balance
from pixelwise.training.loop import fit
from pixelwise.training.memory import freed_memory_kept
from pixelwise.training.objective import make_loss
from pixelwise.training.optimize import layers, learning_rate, make_optimizer
from pixelwise.training.progress import read_metrics
from pixelwise.transforms.torchvision import IMAGE_AND_MASK_FILL, joint

CONFIG = TrainConfig(
    steps=40, batch_size=2, peak_lr=1e-2, warmup_steps=4, validate_every=15, workers=0, seed=3
)


def loss_of(network, batch):
    return cross_entropy(network(batch["image"])["out"], batch["mask"])


def run(out, config=CONFIG, samples=None, **changes):
    torch.manual_seed(0)
    network = UNet(width=4)
    augment = joint(v2.RandomHorizontalFlip())
    return fit(network, samples or squares(), augment, loss_of, dataclasses.replace(config, **changes), out)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_a_tiny_run_learns_its_pictures(tmp_path):
    network = run(tmp_path, steps=120)
    item = joint(v2.Identity())(squares()[0])
    assert not network.training
    assert (network(item["image"][None])["out"].argmax(1)[0] == item["mask"]).float().mean() > 0.98


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on, of any DataLoader
def test_the_same_seed_gives_the_same_numbers_whatever_the_workers(tmp_path):
    first, again = run(tmp_path / "a", steps=6), run(tmp_path / "b", steps=6)
    assert torch.equal(weights(first), weights(again))
    assert torch.equal(weights(first), weights(run(tmp_path / "c", steps=6, workers=1)))
    assert not torch.equal(weights(first), weights(run(tmp_path / "d", steps=6, seed=4)))


@pytest.mark.parametrize(("save_minutes", "kept"), [(0, 33), (1000, 0)])
def test_a_run_that_is_interrupted_goes_on_as_if_it_were_not(tmp_path, save_minutes, kept):
    """Validations, at steps 15 and 30, write none of their own; there is one before the first step."""
    whole = run(tmp_path / "whole", ema_decay=0.9)

    class Stop(Exception):
        pass

    def stops(network, batch):
        calls.append(1)
        if len(calls) > 33:
            raise Stop
        return loss_of(network, batch)

    calls = []
    config = dataclasses.replace(CONFIG, ema_decay=0.9, save_minutes=save_minutes)
    torch.manual_seed(0)
    network = UNet(width=4)
    with pytest.raises(Stop):
        fit(network, squares(), joint(v2.RandomHorizontalFlip()), stops, config, tmp_path / "cut")
    files = {p.name for p in (tmp_path / "cut").iterdir()}
    assert files == {"best.pt", "checkpoint.pt", "config.json", "metrics.jsonl"}
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == kept
    assert torch.equal(weights(run(tmp_path / "cut", ema_decay=0.9)), weights(whole))
    with pytest.raises(InputError, match="another configuration"):
        run(tmp_path / "cut", seed=9)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("said", [(0.2, 0.9, 0.5), (0.2, 0.9, 0.9)])
def test_the_best_by_validation_is_kept(said, ema_decay, tmp_path):
    scores = iter(said)
    seen = []

    def validate(network):
        assert not network.training
        seen.append(weights(network))
        return next(scores)

    torch.manual_seed(0)
    network = UNet(width=4)
    config = dataclasses.replace(CONFIG, ema_decay=ema_decay)
    fit(network, squares(), joint(v2.Identity()), loss_of, config, tmp_path, validate)
    assert len(seen) == 3
    assert torch.equal(weights(network), seen[1])  # of equals the first
    assert not torch.equal(seen[1], seen[2])


def test_a_run_from_before_its_best_weights_said_whose_they_are_is_gone_on_with(tmp_path):
    before = run(tmp_path, steps=6)
    kept = torch.load(tmp_path / "best.pt", weights_only=True)
    torch.save(kept["state_dict"], tmp_path / "best.pt")
    assert torch.equal(weights(run(tmp_path, steps=6)), weights(before))


def test_frozen_batch_norm_keeps_its_statistics_and_still_learns(tmp_path):
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in UNet(width=4).state_dict().items()}
    after = run(tmp_path, steps=5, frozen_batch_norm=True).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert not torch.equal(before["inc.double_conv.1.weight"], after["inc.double_conv.1.weight"])


def test_the_learning_rate_warms_up_and_falls_to_almost_nothing():
    config = TrainConfig(steps=100, warmup_steps=10, peak_lr=1.0, poly_power=0.9)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[10] == max(rates) == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5**0.9)
    assert 0 < rates[-1] < 0.02


def test_a_configuration_survives_json_and_refuses_what_it_does_not_know():
    config = CONFIG.replace(
        augment={"scale": [0.75, 1.5]}, losses={"dice": 2.0}, trackers=("tensorboard",), model="unet"
    )
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError, match=r"no 'peek_lr'; did you mean 'peak_lr'"):
        TrainConfig.from_json('{"steps": 3, "peek_lr": 0.1}')
    with pytest.raises(InputError, match="no JSON"):
        TrainConfig.from_json("{steps")
    for wrong, said in (
        ({}, "steps or epochs"),
        ({"steps": 3, "epochs": 2}, "steps or epochs"),
        ({"steps": 3, "batch_size": 0}, "batch_size must be above 0, got 0"),
        (
            {"steps": 3, "precision": "half"},
            "precision is 'half', expected one of 'float32', 'bfloat16', 'float16'",
        ),
        ({"steps": 3, "warmup_steps": 3}, "warmup_steps must be below steps"),
        ({"steps": 3, "batch_size": "many"}, "batch_size is 'many', expected a whole number"),
    ):
        with pytest.raises(InputError, match=said):
            TrainConfig.from_dict(wrong)


def test_an_epoch_is_as_many_steps_as_the_pictures_of_all_processes_ask_for():
    config = TrainConfig(epochs=3, batch_size=4, accumulate=2, validate_every=None)
    assert [config.total_steps(80, processes) for processes in (1, 2, 5)] == [30, 15, 6]
    assert config.steps_between_validations(80) == 10
    assert config.replace(epochs=1000).steps_between_validations(80) == 200  # at most fifty a run


def test_accumulated_steps_have_the_gradient_of_the_whole_batch(tmp_path):
    plain = {"frozen_batch_norm": True, "optimizer": "sgd", "steps": 8}  # no statistics over a batch
    whole = run(tmp_path / "whole", samples=squares(4), batch_size=4, **plain)
    parts = run(tmp_path / "parts", samples=squares(4), batch_size=2, accumulate=2, **plain)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-5)
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for one, other in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["epoch"] == other["epoch"]


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"channels_last": True}, {"ema_decay": 0.5}])
def test_what_only_makes_it_faster_or_smoother_learns_nearly_the_same(tmp_path, change):
    usual, other = run(tmp_path / "usual", steps=12), run(tmp_path / "other", steps=12, **change)
    assert type(other.forward) is type(usual.forward)
    assert "forward" not in vars(other)  # nothing of what wrapped it is left
    before, after = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("usual", "other"))
    assert [line["loss"] for line in after] == pytest.approx([line["loss"] for line in before], rel=0.05)
    assert next(other.parameters()).dtype == torch.float32


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_memory_that_steps_give_back_is_kept_until_the_run_ends():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident()
    with freed_memory_kept():
        block = torch.ones(64, 2**20, dtype=torch.uint8)
        del block
        kept = resident() - before
    assert kept > 60  # MiB
    assert resident() - before < 16


def test_float16_on_a_cpu_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="float16 needs a GPU"):
        run(tmp_path, precision="float16")


def test_a_tracker_gets_the_losses(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own
        run(tmp_path, steps=3, warmup_steps=0, trackers=("tensorboard",))
        assert list(tmp_path.rglob("events.out.tfevents*"))
    with pytest.raises(InputError, match=r"tracker 'tensorbord' is not installed or not known; installed: "):
        run(tmp_path / "other", trackers=("tensorbord",))


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a batch of 4 pictures is larger than the 3 .* --batch-size 3"):
        run(tmp_path, batch_size=4)


def test_a_run_of_another_network_or_other_data_is_not_resumed(tmp_path):
    run(tmp_path, steps=2, warmup_steps=0)
    with pytest.raises(InputError, match=r"another network .* differs"):
        fit(
            UNet(width=5),
            squares(),
            joint(v2.Identity()),
            loss_of,
            CONFIG.replace(steps=2, warmup_steps=0),
            tmp_path,
        )
    with pytest.raises(InputError, match=r"over 3 pictures, now there are 4"):
        run(tmp_path, steps=2, warmup_steps=0, samples=squares(4))
    with pytest.raises(InputError, match=r"another configuration \(model 'fpn' instead of ''\)"):
        run(tmp_path, steps=2, warmup_steps=0, model="fpn")
    run(tmp_path, steps=2, warmup_steps=0, workers=1)  # which changes no number


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path):
    def breaks(network, batch):
        value = loss_of(network, batch)
        return {"fine": value, "broken": value * number()}

    calls = []

    def number():
        calls.append(1)
        return float("nan") if len(calls) == 8 else 1.0

    torch.manual_seed(0)
    config = CONFIG.replace(save_minutes=0)
    with pytest.raises(
        PixelwiseError, match=r"no longer a number at step 8 .*broken nan.*bad_batch.pt"
    ) as stop:
        fit(UNet(width=4), squares(), joint(v2.Identity()), breaks, config, tmp_path)
    kept = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert kept["step"] == 7
    assert all(name in str(stop.value) for name in kept["names"])
    drawn = {sample.name: joint(v2.Identity())(sample)["image"] for sample in squares()}
    for name, image in zip(kept["names"], kept["batch"]["image"], strict=True):
        assert torch.equal(image, drawn[name])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 7
    assert all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_names_the_knobs(tmp_path, error):
    def greedy(network, batch):
        raise error

    with pytest.raises(PixelwiseError, match=r"out of memory .*--batch-size.*--image-size.*--precision"):
        fit(UNet(width=4), squares(), joint(v2.Identity()), greedy, CONFIG, tmp_path)


def test_losses_come_by_name_and_their_parts_are_logged(tmp_path):
    config = CONFIG.replace(steps=2, warmup_steps=0, losses={"cross_entropy": 1.0, "dice": 0.5})
    network, batch = (
        UNet(width=4),
        {"image": torch.randn(2, 3, 32, 32), "mask": torch.randint(0, 2, (2, 32, 32))},
    )
    parts = make_loss(config)(network, batch)
    logits = network(batch["image"])["out"]
    torch.testing.assert_close(parts["cross_entropy"], cross_entropy(logits, batch["mask"]))
    torch.testing.assert_close(parts["dice"], 0.5 * dice(logits, batch["mask"]))
    with pytest.raises(UnknownNameError, match="did you mean 'dice'"):
        make_loss(config.replace(losses={"dicee": 1.0}))
    with pytest.raises(InputError, match=r"no option 'treshold'; did you mean 'threshold'"):
        make_loss(
            config.replace(
                losses={"ohem_cross_entropy": 1.0}, loss_options={"ohem_cross_entropy": {"treshold": 1}}
            )
        )


def test_auxiliary_heads_count_as_much_as_asked():
    network = compose("fpn", "resnet18", num_classes=2, aux_loss=True)
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": torch.randint(0, 2, (2, 64, 64))}
    config = TrainConfig(steps=1, losses={"cross_entropy": 2.0}, aux_weight=0.25)
    outputs = network(batch["image"])
    torch.manual_seed(0)
    parts = make_loss(config)(lambda image: outputs, batch)
    torch.testing.assert_close(parts["aux cross_entropy"], 0.5 * cross_entropy(outputs["aux"], batch["mask"]))
    assert "aux cross_entropy" not in make_loss(config.replace(aux_weight=0.0))(lambda image: outputs, batch)


def rates(network, config):
    """Name of each parameter that learns: (learning rate, weight decay)."""
    of = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in make_optimizer(network, config).param_groups
        for parameter in group["params"]
    }
    return {name: of[id(p)] for name, p in network.named_parameters() if id(p) in of}


def test_heads_learn_faster_and_norms_do_not_decay():
    network = compose("fpn", "resnet18", num_classes=2, aux_loss=True)
    config = TrainConfig(steps=9, peak_lr=0.1, weight_decay=0.01, head_lr_factor=10, aux_lr_factor=5)
    rate = rates(network, config)
    assert len(rate) == len(list(network.parameters()))
    assert rate["encoder.layer1.0.conv1.weight"] == (0.1, 0.01)
    assert rate["encoder.layer1.0.bn1.weight"] == (0.1, 0)
    assert {r for name, (r, _) in rate.items() if name.startswith("aux")} == {0.5}
    assert {r for name, (r, _) in rate.items() if name.startswith(("decoder", "segmentation"))} == {1.0}
    assert {d for _, d in rates(network, config.replace(decay_norms=True)).values()} == {0.01}
    with pytest.raises(InputError, match="of one piece"):
        make_optimizer(UNet(width=4), config)


def test_layers_learn_the_slower_the_nearer_they_are_to_the_image():
    network = compose("fpn", "resnet18", num_classes=2)
    rate = {
        name: r for name, (r, _) in rates(network, TrainConfig(steps=9, peak_lr=1.0, layer_decay=0.5)).items()
    }
    assert rate["decoder.p5.weight"] == 1
    assert rate["encoder.layer4.1.conv2.weight"] == 0.5
    assert rate["encoder.layer4.0.conv1.weight"] == rate["encoder.layer4.0.downsample.0.weight"] == 0.25
    assert rate["encoder.conv1.weight"] < rate["encoder.layer1.0.conv1.weight"] == 0.5**8
    blocks = set(layers(compose("segformer", "mit_b0", num_classes=2).encoder).values())
    assert len(blocks) > 8 + 4  # two blocks in each of four stages, and what lies between the stages


def test_a_frozen_encoder_stays_as_it_is(tmp_path):
    torch.manual_seed(0)
    network = compose("fpn", "resnet18", num_classes=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = CONFIG.replace(steps=3, frozen_encoder=True, warmup_steps=0)
    after = fit(network, squares(), joint(v2.Identity()), loss_of, config, tmp_path).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("encoder.")} <= same
    assert "segmentation_head.0.weight" not in same


def test_pictures_with_rare_classes_are_drawn_more_often():
    samples = squares(8)
    samples[3].mask[:2] = 2  # one picture of eight shows class 2
    weights_ = class_balance(samples)
    assert weights_[3] == pytest.approx((0.5 * 8) ** 0.5)
    assert (weights_[[0, 1, 2, 4, 5, 6, 7]] == 1).all()
    unknown = [Sample(s.image, s.mask.astype(np.uint16), s.name) for s in samples]
    unknown[3].mask[:2] = 65535
    assert (class_balance(unknown) == 1).all()  # what is not known is no class
    draws = Draws(samples, joint(v2.Identity()), seed=0, first=0, last=8000, weights=weights_)
    shown = np.bincount([draws.sample_of(i) for i in range(8000)])
    assert shown[3] / shown[0] == pytest.approx(2, rel=0.15)
    again = Draws(samples, joint(v2.Identity()), seed=0, first=400, last=8000, weights=weights_)
    assert [again.sample_of(i) for i in range(400, 500)] == [draws.sample_of(i) for i in range(400, 500)]


@pytest.mark.slow
def test_two_processes_learn_and_score_as_one_with_the_doubled_batch(tmp_path):
    script = str(Path(__file__).parent / "crashing.py")
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    )
    launch += " --dynamo_backend no --main_process_port 0"
    for name, how in (("one", ["train"]), ("two", ["train"])):
        (tmp_path / name).mkdir()
        before = launch.split() if name == "two" else []
        command = [sys.executable, *before, script, *how, str(tmp_path / name), "2" if name == "two" else "4"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two]
    scores = [(a["score"], b["score"]) for a, b in zip(one, two, strict=True) if "score" in a]
    assert scores[-1][0] > 0.8
    assert all(a == pytest.approx(b, abs=2e-3) for a, b in scores)  # a pixel more or less
    losses = [(a["loss"], b["loss"]) for a, b in zip(one, two, strict=True) if "loss" in a]
    assert all(a == pytest.approx(b, rel=1e-3) for a, b in losses)

    whole, names = json.loads((tmp_path / "one" / "seen0.json").read_text())
    halves = [json.loads((tmp_path / "two" / f"seen{rank}.json").read_text()) for rank in (0, 1)]
    for step in range(30):  # each batch of four is two and two
        parts = [part[0][2 * step : 2 * step + 2] for part in halves]
        assert parts[0] + parts[1] == whole[4 * step : 4 * step + 4]
    assert all(sorted(part[1]) == sorted(names) == sorted(set(names)) for part in halves)


def test_image_and_mask_move_together_and_only_the_image_is_scaled():
    sample = squares(1)[0]
    torch.manual_seed(1)
    transform = v2.Compose([v2.RandomRotation((90, 90)), v2.Pad(4, fill=IMAGE_AND_MASK_FILL)])
    item = joint(transform)(sample)
    assert item["image"].dtype == torch.float32
    assert item["mask"].dtype == torch.int64
    assert (item["mask"][0] == 255).all()
    inside = item["mask"][4:-4, 4:-4]
    assert torch.equal(inside, torch.tensor(np.rot90(sample.mask).copy()).long())
    expected = torch.tensor(np.rot90(sample.image).copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(item["image"][:, 4:-4, 4:-4], expected)


def test_with_a_border_the_split_of_a_name_depends_on_that_name_alone():
    names = [f"tile{i}" for i in range(1000)]
    training, held_out = split_by_name(names, 0.2)
    assert sorted(training + held_out) == sorted(names)
    assert 160 < len(held_out) < 240
    assert split_by_name(names[500:], 0.2)[1] == [name for name in held_out if name in names[500:]]
    assert set(held_out) <= set(split_by_name(names, 0.3)[1])


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20, 22, 23, 100, 1000])
def test_without_a_border_a_fifth_of_the_names_is_held_out_whatever_they_are(count):
    for kind in ("tile", "IMG_", "case-"):
        names = [f"{kind}{i}" for i in range(count)]
        training, held_out = split_by_name(names)
        assert len(held_out) == max(1, round(count / 5))
        assert (training, held_out) == split_by_name(names, border_of(names))
        assert set(split_by_name(reversed(names))[1]) == set(held_out)  # in any order
        more = [*names, *(f"new{i}" for i in range(100))]
        grown = split_by_name(more, border_of(names))
        assert set(training) <= set(grown[0])
        assert set(held_out) <= set(grown[1])
