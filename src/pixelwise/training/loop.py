"""The training loop, top to bottom: draw a batch, loss, step, average, now and then validate and save.

Runs are a function of their configuration: the samples, crops, flips and dropout of step s depend on the seed and on
s alone, not on the number of workers or on where a run was interrupted. Devices, precision and the spread over
processes come from Hugging Face Accelerate: `accelerate launch` runs the same function on several GPUs or machines.
Several processes of batch b see together the batches that one process of the doubled batch sees.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError, MissingExtraError, PixelwiseError, first_line
from pixelwise.files import held
from pixelwise.training.config import LENGTH, MOVES, TrainConfig
from pixelwise.training.draws import Draws, class_balance
from pixelwise.training.kept_data import Kept, write_kept
from pixelwise.training.memory import freed_memory_kept
from pixelwise.training.objective import Batch, LossOf
from pixelwise.training.optimize import (
    last_of,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    set_mode,
    to_channels_last,
)
from pixelwise.training.progress import Metrics, Progress
from pixelwise.training.state import load_state, save_state, save_text
from pixelwise.training.stopping import ctrl_c, leave_ctrl_c

__all__ = ["Batch", "TrainConfig", "fit"]

Validate = Callable[[nn.Module], float | Mapping[str, float]]
"""network -> its score, higher is better, or several by name, of which the first decides."""

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Our words for Accelerate's."""

KNOBS = "a smaller --batch-size with --accumulate to make up for it, a smaller --image-size, or --precision bfloat16"


@freed_memory_kept()
def fit(
    network: nn.Module,
    samples: Samples,
    augment: Callable[[Sample], Batch],
    loss_of: LossOf,
    config: TrainConfig,
    out: Path,
    validate: Validate | None = None,
    says: Mapping[str, str] = MappingProxyType({}),
    data: Kept | None = None,
) -> nn.Module:
    """Train `network` and return it as it was best by `validate` (higher is better; of several scores by name the first
    decides), else at the end.

    augment: Sample -> tensors of one sample, drawing from torch's global generator; loss_of: (network,
    stacked batch) -> scalar, or scalars by name, whose sum is the loss. `out` receives checkpoint.pt (all that
    resuming needs: call again to go on), best.pt (the weights, and beside them what `says` holds), config.json,
    metrics.jsonl and, where it is given, what the data are. With `ema_decay` what is validated, saved as best and
    returned is the average.

    A run may go on to another number of steps or epochs than it had, but not to fewer than are done: from where it
    stands the learning rate is that of a run which had so many from its beginning. data: what the samples and those of
    `validate` were read from. With it a run may go on with other data, more or fewer; where those to validate on are
    others, the best weights so far are validated again first.

    Ctrl-C, in the main thread of a run of one process, lets the step at hand be finished and kept and raises
    KeyboardInterrupt; a second does not wait.

    The loss and its gradient are means over the forward passes and processes of a step; where they count different
    numbers of pixels, that is not the mean over the pixels of all.

    Raises InputError for a batch larger than the data and when `out` holds a run of another configuration, network or,
    without `data`, amount of data; OutputError when a checkpoint cannot be written, or another run is at work on it;
    PixelwiseError when the loss is no longer a number (the batch is in `out`) or memory runs out.
    """
    accelerator = accelerate_with(config, out, unused=bool(getattr(network, "unused_parameters", ())))
    alone = held(out / ".checkpoint.pt.lock", str(out)) if accelerator.is_main_process else nullcontext()
    with alone:
        return _fit(accelerator, network, samples, augment, loss_of, config, out, validate, says, data)


def _fit(
    accelerator: Any, network: nn.Module, samples: Samples, augment: Callable[[Sample], Batch], loss_of: LossOf,
    config: TrainConfig, out: Path, validate: Validate | None, says: Mapping[str, str],
    data: Kept | None,
) -> nn.Module:  # fmt: skip
    processes, main = accelerator.num_processes, accelerator.is_main_process
    steps = config.total_steps(len(samples), processes)
    interval = config.steps_between_validations(len(samples), processes)
    a_step = config.samples_a_step(processes)
    refuse_large_batch(config, len(samples), processes)

    # What is learned, and by what.
    torch.manual_seed(config.seed)
    if config.sync_batch_norm and processes > 1 and accelerator.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if config.channels_last:
        network = to_channels_last(network)
    optimizer = make_optimizer(network, config)
    average = None
    if config.ema_decay is not None:
        averaging = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, accelerator.device, multi_avg_fn=averaging, use_buffers=True)

    # Where it was left off.
    start, best, state = 0, -math.inf, None
    if (out / "checkpoint.pt").is_file():
        state = load_state(out / "checkpoint.pt")
        refuse_another_run(state, config, network, len(samples) if data is None else None, processes, out)
        try:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            refuse_other_shapes(optimizer)
            if average is not None:
                average.load_state_dict(state["average"])
        except Exception as error:  # whatever torch meets in a state that is none of this network's
            raise InputError(
                f"{out / 'checkpoint.pt'} is no checkpoint of this run ({str(error)[:120] or type(error).__name__}); "
                "train into another folder"
            ) from error
        start, best = state["step"], state["best"]
        as_long = TrainConfig.from_json(state["config"]).same_length(config) and state["samples"] == len(
            samples
        )
        if start < 0 or (start > steps and as_long):
            raise InputError(
                f"{out / 'checkpoint.pt'} says that {start} of {steps} steps are done: it is damaged, or of another "
                "run; begin again in another folder"
            )
        if start > steps:
            raise InputError(
                f"{out} holds a run that has done {start} steps, which cannot end after {steps}; ask for more, or use "
                "another folder"
            )
    accelerator.wait_for_everyone()
    if main:
        save_text(config.to_json() + "\n", out / "config.json")

    weights = class_balance(samples) if config.class_balanced else None
    draws = Draws(
        samples, augment, seed=config.seed, first=start * a_step, last=steps * a_step, weights=weights
    )
    loader = DataLoader(
        draws,
        config.batch_size,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=leave_ctrl_c,
    )
    raw = network  # without what Accelerate wraps around it
    judged = state is None or state.get("judged", True)  # whether the validation after the last step is done
    if start < steps or not judged:
        network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    if state is not None and accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])

    metrics = Metrics(out / "metrics.jsonl", start, judged=judged) if main else None
    progress = Progress(steps, start, a_step) if main else None
    if main and data is not None:  # not before whatever may refuse
        write_kept(data, out)
    done = kept_step = start

    def keep() -> None:
        nonlocal kept_step
        about = {
            "network": raw.state_dict(),
            "average": None if average is None else average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            "step": done,
            "judged": judged,
            "best": best,
            "samples": len(samples),
            "data": {} if data is None else data.words,
            "processes": processes,
            "config": config.to_json(),
        }
        if metrics is not None:
            metrics.sync()
        save_state(about, out / "checkpoint.pt")
        kept_step = done

    def scores_of(candidate: nn.Module) -> dict[str, float]:
        found = validate(candidate.eval()) if validate else float(done)
        return dict(found) if isinstance(found, Mapping) else {"score": found}

    def judge() -> None:
        nonlocal best, judged
        candidate: nn.Module = raw if average is None else average.module
        share_statistics(candidate, accelerator)
        scores = scores_of(candidate)
        score = next(iter(scores.values()))
        if validate and metrics is not None and progress is not None:
            metrics.add({"step": done, "score": score, "scores": scores})
            progress.validated(done, scores, max(best, score))
            accelerator.log({"score": score}, step=done)
        if score > best or (done == steps and best == -math.inf):  # a score may be NaN
            if main:
                save_state({"state_dict": candidate.state_dict(), **says}, out / "best.pt")
            best = max(best, score) if score == score else best  # once that is there, whatever interrupts it
        judged = True

    began = saved = time.monotonic()
    batches = iter(loader)
    with ctrl_c(progress.note if progress is not None else print, alone=processes == 1) as stop:
        try:
            if main and state is None:
                keep()  # so that there is never a result without a checkpoint to go on from
            if validate and state is not None and other_val(state, data) and (out / "best.pt").is_file():
                then = copy.deepcopy(raw)
                then.load_state_dict(weights_of(out / "best.pt"))
                again = next(iter(scores_of(then).values()))
                best = again if again == again else -math.inf
            if not judged:
                judge()
            for step in range(start, steps):
                with stop.whole():
                    set_mode(network, config)
                    set_mode(raw, config)
                    rate = learning_rate(step, steps, config)
                    set_learning_rate(optimizer, rate)
                    parts: dict[str, float] = {}
                    for turn in range(config.accumulate):
                        batch = next(batches)
                        if config.channels_last:
                            batch["image"] = batch["image"].contiguous(memory_format=last_of(batch["image"]))
                        place = (step * config.accumulate + turn) * processes + accelerator.process_index
                        torch.manual_seed((config.seed + 2) * 1_000_000_009 + place)  # of dropout
                        with accelerator.accumulate(network):
                            with accelerator.autocast():
                                found = loss_of(network, batch)
                            losses = {"loss": found} if isinstance(found, Tensor) else found
                            values = torch.stack([value.detach().float() for value in losses.values()])
                            if not values.isfinite().all():
                                first = place * config.batch_size
                                names = [
                                    samples[draws.sample_of(i)].name
                                    for i in range(first, first + len(batch["image"]))
                                ]
                                stop_at_no_number(
                                    dict(zip(losses, values.tolist(), strict=True)), batch, names, step, out
                                )
                            accelerator.backward(sum(losses.values()))
                            if config.clip_norm is not None and accelerator.sync_gradients:
                                accelerator.clip_grad_norm_(network.parameters(), config.clip_norm)
                            optimizer.step()
                            optimizer.zero_grad()
                        means = accelerator.reduce(values, "mean").tolist()
                        for name, value in zip(losses, means, strict=True):
                            parts[name] = parts.get(name, 0.0) + value / config.accumulate
                    if average is not None and not accelerator.optimizer_step_was_skipped:
                        average.update_parameters(raw)

                    done = step + 1
                    judged = done != steps and done % interval != 0
                    loss = sum(parts.values())
                    if metrics is not None and progress is not None:
                        line = {
                            "step": done,
                            "epoch": done * a_step / len(samples),
                            "loss": loss,
                            "parts": parts,
                            "lr": rate,
                        }
                        metrics.add({**line, "seconds": time.monotonic() - began})
                        progress.step(done, parts, rate)
                    accelerator.log({"loss": loss, "learning rate": rate, **parts}, step=done)
                if not judged:
                    judge()
                if main and (done == steps or time.monotonic() - saved >= 60 * config.save_minutes):
                    keep()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if main and done > kept_step and not stop.torn:
                keep()
            raise
        except (RuntimeError, MemoryError) as error:
            raise_if_out_of_memory(error)
            raise
        finally:
            if metrics is not None and progress is not None:
                metrics.close()
                progress.close()
    for tracker in accelerator.trackers:  # end_training would also part the processes, which may go on
        tracker.finish()
    accelerator.wait_for_everyone()
    trained: nn.Module = accelerator.unwrap_model(network, keep_fp32_wrapper=False, keep_torch_compile=False)
    for name in ("forward", "_original_forward"):  # the autocast that Accelerate put over the class's own
        vars(trained).pop(name, None)
    if (out / "best.pt").is_file():  # on every machine that sees the folder
        trained.load_state_dict(weights_of(out / "best.pt"))
    return trained.eval()


def weights_of(best: Path) -> Mapping[str, Any]:
    """What a best.pt holds of a network."""
    kept = load_state(best, {})
    weights: Mapping[str, Any] = kept.get("state_dict", kept)  # bare before it said whose they are
    return weights


def refuse_other_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where what was kept of a parameter has not its shape: the parameters were in another order."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(value.shape)} for a parameter {tuple(parameter.shape)}")


def other_val(state: Mapping[str, Any], data: Kept | None) -> bool:
    """Whether a checkpoint knows its data, and those that it validated on were others."""
    then = state.get("data")
    return bool(data and isinstance(then, Mapping) and then and then.get("val") != data.words["val"])


def process_state() -> Any:
    """Accelerate's view of the processes and devices of this launch, for those who come before or after the loop."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # which it does not look at by itself


def train_on(device: str | None) -> None:
    """Let Accelerate, which reads the environment, train on that device from now on; None and "auto" leave it the
    choice. Raises InputError for one that there is not."""
    if device in (None, "auto"):
        return
    try:
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:  # no such kind of device, or none of it here
        raise InputError(f"device {device!r} cannot be used here: {first_line(error)}") from error
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE"):  # of an earlier run in this process
        os.environ.pop(name, None)
    if torch.device(str(device)).type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    else:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    _choose_again()


@contextmanager
def on_device(device: str | None) -> Iterator[None]:
    """`train_on` for what the block trains; the choice is then what it was before."""
    names = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE")
    before = {name: os.environ.get(name) for name in names}
    train_on(device)
    try:
        yield
    finally:
        if device not in (None, "auto"):
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            _choose_again()


def _choose_again() -> None:
    """Let Accelerate, which keeps its choice of a device for the process, choose anew where there is one process."""
    from accelerate import PartialState

    if PartialState._shared_state and PartialState().num_processes == 1:
        PartialState._reset_state()


def accelerate_with(config: TrainConfig, out: Path, *, unused: bool) -> Any:
    """The Accelerator of a run: devices and processes as launched, precision and compilation as configured.

    unused: the network has parameters that take no part, which DDP wants to know.
    """
    try:
        from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState, GradientState
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    refuse_unknown_trackers(config.trackers)
    AcceleratorState._reset_state()  # a process may train several times, in different precision
    GradientState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=PRECISIONS[config.precision],
            gradient_accumulation_steps=config.accumulate,
            dynamo_backend="inductor" if config.compile else "no",
            dataloader_config=DataLoaderConfiguration(non_blocking=True),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
            log_with=list(config.trackers) or None,
            project_dir=str(out) if config.trackers else None,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"this machine cannot train so: {error}") from error
    if config.precision == "float16" and accelerator.device.type == "cpu":
        raise InputError("float16 needs a GPU; use --precision bfloat16 or float32 on the CPU")
    if str(accelerator.distributed_type.value) not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise InputError(
            f"training is tested on one device and with DDP, not with {accelerator.distributed_type.value}; "
            "launch without it"
        )
    if config.trackers:
        flat = {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str))}
        accelerator.init_trackers("pixelwise", config=flat)
    return accelerator


def refuse_unknown_trackers(trackers: tuple[str, ...]) -> None:
    """Raise InputError for a tracker that Accelerate does not know, or that is not installed."""
    if not trackers:
        return
    from accelerate.tracking import get_available_trackers

    known = [str(tracker) for tracker in get_available_trackers()]
    for name in trackers:
        if name not in known:
            raise InputError(
                f"the tracker {name!r} is not installed or not known; installed: {', '.join(known) or 'none'}"
            )


def refuse_large_batch(config: TrainConfig, samples: int, processes: int) -> None:
    """Raise InputError where one batch would hold pictures twice."""
    batch = config.batch_size * processes
    if batch > samples:
        raise InputError(
            f"a batch of {batch} pictures is larger than the {samples} there are to learn from; use --batch-size "
            f"{max(1, samples // processes)} or add pictures"
        )


def refuse_another_run(
    state: dict[str, Any],
    config: TrainConfig,
    network: nn.Module,
    samples: int | None,
    processes: int,
    out: Path,
) -> None:
    """Raise InputError unless the checkpoint `state` is of this very run. samples: None: its data may be others."""
    found = TrainConfig.from_json(state["config"])
    advice = "go on with that or use another folder"
    if differing := config.differs(found, but=LENGTH if samples is not None else LENGTH | MOVES):
        raise InputError(f"{out} holds a run with another configuration ({differing}): {advice}")
    for what, now, then in (
        ("pictures", state["samples"] if samples is None else samples, state["samples"]),
        ("processes", processes, state["processes"]),
    ):
        if now != then:
            raise InputError(f"{out} holds a run over {then} {what}, now there are {now}: {advice}")
    own, theirs = network.state_dict(), state["network"]
    wrong = [
        str(k)
        for k in own.keys() | theirs.keys()
        if k not in own or k not in theirs or own[k].shape != getattr(theirs[k], "shape", None)
    ]
    if wrong:
        raise InputError(f"{out} holds a run of another network ({min(wrong)} differs): {advice}")


def share_statistics(network: nn.Module, accelerator: Any) -> None:
    """Give every process the buffers of the first, so that all validate the same network."""
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        for buffer in network.buffers():
            buffer.copy_(broadcast(buffer))


def stop_at_no_number(parts: dict[str, float], batch: Batch, names: list[str], step: int, out: Path) -> None:
    """Save the batch whose loss is not finite and raise; the weights have not moved."""
    path = out / "bad_batch.pt"
    save_state({"batch": batch, "names": names, "step": step, "parts": parts}, path)
    said = ", ".join(f"{name} {value}" for name, value in parts.items())
    raise PixelwiseError(
        f"the loss is no longer a number at step {step + 1} ({said}), on the pictures {', '.join(names)}; the batch is "
        f"in {path} and the last checkpoint is good: look at the batch, or lower --lr or set --clip-norm"
    )


def raise_if_out_of_memory(error: BaseException) -> None:
    """Raise PixelwiseError that names what to turn, if that is what happened."""
    said = str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in said:
        raise PixelwiseError(
            f"out of memory ({said.splitlines()[0] if said else 'host'}): try {KNOBS}"
        ) from error
    if "DataLoader worker" in said and "exited unexpectedly" in said:
        raise PixelwiseError(
            "a process that loads pictures was killed, most likely for lack of memory: try fewer --workers"
        ) from error
