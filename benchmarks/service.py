"""Photographs to label maps over HTTP: `pixelwise serve` against what one writes of FastAPI and torchvision.

    python benchmarks/service.py                 # five minutes on two cores
    python benchmarks/service.py --rounds 3 --seconds 4 --clients 4

The peer is the text below, put together from the documentation of both: FastAPI's upload in a function that blocks,
torchvision's decode_image, its weights' transforms, the model in inference mode, argmax, a PNG; `--peer-turns` lets it
take one picture at a time, `--peer-threads N` limits PyTorch's threads. The network is the same on both sides,
LR-ASPP on MobileNetV3, with random weights under which classes vary over a picture. Each service is a process of its
own, and so are those who ask, over connections that stay open; in each round every number of clients asks one service
and then the other. The peer's label map has the size of the network's input, ours that of the picture.

At the end more ask than may wait, each coming back when the answer says so: how long accepted and refused take.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from folder import photographs
from timing import percentile, record

PEER = """
import io
import sys
import threading

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from fastapi.responses import Response
from torchvision.io import decode_image
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large
from torchvision.transforms.functional import to_pil_image

state, port, turns, threads = sys.argv[1:]
if int(threads):
    torch.set_num_threads(int(threads))
weights = LRASPP_MobileNet_V3_Large_Weights.DEFAULT
model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
model.load_state_dict(torch.load(state))
model.eval()
preprocess = weights.transforms()
turn = threading.Semaphore(1 if turns == "True" else 1000)
app = FastAPI()


@app.get("/ready")
def ready():
    return "ready"


@app.post("/segment")
def segment(picture: UploadFile):
    content = torch.frombuffer(bytearray(picture.file.read()), dtype=torch.uint8)
    with turn, torch.inference_mode():
        batch = preprocess(decode_image(content)).unsqueeze(0)
        labels = model(batch)["out"].argmax(dim=1).squeeze(0).byte()
        file = io.BytesIO()
        to_pil_image(labels).save(file, "PNG")
    return Response(file.getvalue(), media_type="image/png")


uvicorn.run(app, port=int(port), log_level="warning")
"""

BOUNDARY = "picture-of-the-benchmark"
OURS, THEIRS = "pixelwise serve", "FastAPI + torchvision"


def network(folder: Path) -> tuple[Path, Path]:
    """Its weights for torchvision, and the same network as an ONNX file of ours."""
    import torch
    from torchvision.models import segmentation

    from networks import NETWORKS, varied
    from pixelwise import models
    from pixelwise.catalog import entry
    from pixelwise.export.onnx import export_onnx

    kind, _ = NETWORKS["lraspp"]
    theirs = varied(getattr(segmentation, kind)(weights=None, weights_backbone=None, num_classes=21))
    torch.save(theirs.state_dict(), folder / "lraspp.pt")
    ours = getattr(models, kind)(weights=None, weights_backbone=None)
    ours.load_state_dict(theirs.state_dict())
    export_onnx(ours, entry(kind).card, folder / "lraspp.onnx")
    return folder / "lraspp.pt", folder / "lraspp.onnx"


@contextmanager
def serving(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service that answers; it ends with the context."""
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.1)
            if process.poll() is not None:
                sys.exit(f"{command} ended with {process.returncode}")
        yield process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds that all cores together have worked for a process."""
    if not os.path.exists("/proc"):
        return float("nan")
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text() if os.path.exists("/proc") else ""
    found = re.search(r"VmHWM:\s+(\d+)", text)
    return round(int(found[1]) / 1024) if found else float("nan")


def ask(port: int, folder: Path, clients: int, seconds: float) -> dict[str, Any]:
    """So many clients, each with its connection, for so long: seconds of every answer by status, and of all of it."""
    form = b'\r\nContent-Disposition: form-data; name="picture"; filename="%s"\r\nContent-Type: image/jpeg\r\n\r\n'
    bodies = [
        b"--"
        + BOUNDARY.encode()
        + form % path.name.encode()
        + path.read_bytes()
        + f"\r\n--{BOUNDARY}--".encode()
        for path in sorted(folder.iterdir())
    ]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    took: list[tuple[int, float]] = []
    began = time.perf_counter()
    ends = began + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while (start := time.perf_counter()) < ends:
            connection.request("POST", "/segment", bodies[number % len(bodies)], headers)
            answer = connection.getresponse()
            content = answer.read()
            took.append((answer.status, time.perf_counter() - start))
            if answer.status == 200:
                assert content.startswith(b"\x89PNG")
            else:
                time.sleep(float(answer.headers.get("Retry-After", 0)))
            number += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"took": took, "seconds": time.perf_counter() - began}


def asked(port: int, folder: Path, clients: int, seconds: float) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--ask", str(port), str(folder), str(clients), str(seconds)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def milliseconds(took: list[float]) -> dict[str, float]:
    return {f"p{percent}": round(1000 * percentile(took, percent), 1) for percent in (50, 95, 99)}


def main() -> None:
    if sys.argv[1:2] == ["--ask"]:
        port, folder, clients, seconds = sys.argv[2:]
        print(json.dumps(ask(int(port), Path(folder), int(clients), float(seconds))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="of each number of clients in a round")
    parser.add_argument("--peer-turns", action="store_true")
    parser.add_argument("--peer-threads", type=int, default=0)
    parser.add_argument("--serve", default="", help="more words for pixelwise serve, such as '--workers 1'")
    parser.add_argument("--overload", type=int, default=64, help="clients at the end (0: none)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        folder = Path(place)
        photographs(folder / "photos", 24)
        state, model = network(folder)
        (folder / "peer.py").write_text(PEER)
        ports = {THEIRS: free_port(), OURS: free_port()}
        peer = [
            str(folder / "peer.py"),
            str(state),
            str(ports[THEIRS]),
            str(options.peer_turns),
            str(options.peer_threads),
        ]
        serve = [
            "-m",
            "pixelwise",
            "serve",
            "--model",
            str(model),
            "--port",
            str(ports[OURS]),
            *options.serve.split(),
        ]
        processes = {
            THEIRS: running.enter_context(serving(peer, ports[THEIRS])),
            OURS: running.enter_context(serving(serve, ports[OURS])),
        }
        for port in ports.values():
            asked(port, folder / "photos", 4, 3)  # warm
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            for clients in options.clients:
                for name in sorted(ports, reverse=bool(number % 2)):
                    before = cpu_s(processes[name])
                    one = asked(ports[name], folder / "photos", clients, options.seconds)
                    one["cpu_ms"] = 1000 * (cpu_s(processes[name]) - before) / len(one["took"])
                    assert {status for status, _ in one["took"]} == {200}, name
                    found.setdefault((name, clients), []).append(one)
        peaks = {name: peak_mib(process) for name, process in processes.items()}
        for clients in options.clients:
            runs = {name: found[name, clients] for name in ports}
            record(
                "service",
                f"{clients} client{'s' if clients > 1 else ''}, JPEG of 1024x683 to a label map over HTTP",
                THEIRS,
                OURS,
                # a picture, at the service's pace
                {
                    name: [1000 * one["seconds"] / len(one["took"]) for one in some]
                    for name, some in runs.items()
                },
                clients=clients,
                per_second={
                    name: round(statistics.median(len(one["took"]) / one["seconds"] for one in some), 2)
                    for name, some in runs.items()
                },
                answer_ms={
                    name: milliseconds([seconds for one in some for _, seconds in one["took"]])
                    for name, some in runs.items()
                },
                cpu_ms={
                    name: round(statistics.median(one["cpu_ms"] for one in some), 1)
                    for name, some in runs.items()
                },
                peak_mib=peaks,
                words=options.serve,
            )
        if options.overload:
            overload(ports[OURS], folder / "photos", options)


def overload(port: int, folder: Path, options: argparse.Namespace) -> None:
    one = asked(port, folder, options.overload, 3 * options.seconds)
    statuses = Counter(status for status, _ in one["took"])
    by = {status: [seconds for got, seconds in one["took"] if got == status] for status in statuses}
    line = {
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "answer_ms": {str(status): milliseconds(took) for status, took in sorted(by.items())},
    }
    print(f"{options.overload} clients at once: {line}")
    record(
        "service",
        f"{options.overload} clients, more than may wait",
        "the stated time-out",
        "accepted",
        {"the stated time-out": [60_000.0], "accepted": [1000 * s for s in by[200]]},
        clients=options.overload,
        all_ms=milliseconds([seconds for _, seconds in one["took"]]),
        **line,
    )


if __name__ == "__main__":
    main()
