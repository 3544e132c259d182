"""Time training, the recurrence, the input pipeline and decoding: python -m launch.benchmark all.

    python -m launch.benchmark train-step --peer --peer-griffin --json step.json
    python -m launch.benchmark recurrence
    python -m launch.benchmark data --data-source FILES
    python -m launch.benchmark decode --peer-griffin
    python -m launch.benchmark torch-step
    python -m launch.benchmark answer
    python -m launch.benchmark prefix
    python -m launch.benchmark lora --batch 1 --seq-len 256 --repeats 3

The sides of a comparison take turns, A B A B ..., and while one runs the others sleep, so that
whatever else the machine does falls on all alike; medians are compared. Each model has a process
of its own, which inherits the environment, thus the memory allocator. The peers are models of
transformers in eager PyTorch with as many parameters as ours. They neither clip gradients nor
check that these are finite, and know no packed documents; our step does all that a training run
does.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from hybriko_jax.config import DataConfig, HybriKoConfig, TokenizerConfig
from hybriko_jax.console import load
from hybriko_jax.console.ask import MODEL
from hybriko_jax.console.model import kept_prefix
from hybriko_jax.errors import UserError
from launch import common

DTYPES = ("float32", "bfloat16")
WARM_UP = 2  # rounds

Side = Callable[[], float]
"""Takes one sample: seconds."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the project on this machine; the sides of a comparison take turns."""

    what: tyro.conf.Positional[
        Literal[
            "train-step",
            "torch-step",
            "recurrence",
            "data",
            "decode",
            "answer",
            "prefix",
            "lora",
            "translate",
            "all",
        ]
    ]
    config: str = "hybriko_117m"
    """A name in configs/: the model of the train step."""
    batch: int = 2
    """B, rows of a train step."""
    seq_len: int = 512
    """L, tokens of a row of a train step."""
    repeats: int = 7
    """Samples of every side, after the warm-up."""
    peer: bool = False
    """Also time Llama of transformers, in PyTorch."""
    peer_griffin: bool = False
    """Also time RecurrentGemma of transformers, in PyTorch; slow."""
    lengths: tuple[int, ...] = (512, 2048, 8192)
    """T of the recurrence."""
    data_source: tuple[str, ...] = ("sample",)
    """What the input pipeline reads, as --data.source of launch.pretrain."""
    base: Path | None = None
    """A GPT-NeoX folder to tune or to translate with. None makes one, with random weights."""
    precisions: tuple[Literal["float32", "bfloat16", "nf4"], ...] = ("float32", "bfloat16", "nf4")
    """How the base of the LoRA step is kept; translations leave out nf4."""
    json: Path | None = None
    """Also write every sample, the machine and the command to this file."""

    def __post_init__(self):
        if min(self.repeats, self.batch, self.seq_len - 1, *self.lengths) < 1:
            raise UserError("--repeats, --batch and --lengths must be 1 or more, --seq-len 2.")
        if self.peer or self.peer_griffin or self.what in ("torch-step", "lora", "translate"):
            if common.accelerator():
                raise UserError("The peers run on the CPU only. Set JAX_PLATFORMS=cpu to compare.")
            if not (find_spec("torch") and find_spec("transformers")):
                raise UserError("The peers need PyTorch: pip install torch transformers.")


def main() -> None:
    if not common.accelerator():
        common.prepare_cpu(1)
    arguments = common.parse(Arguments, command="launch.benchmark")
    command = shlex.join(["python", "-m", "launch.benchmark", *sys.argv[1:]])
    report: dict[str, Any] = {"command": command, "machine": machine()}
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items() if value))
    for name in BENCHMARKS if arguments.what == "all" else (arguments.what,):
        report[name] = BENCHMARKS[name](arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """The processor, and the versions that timings depend on."""
    packages = [p for p in ("jax", "jaxlib", "torch", "transformers") if find_spec(p)]
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "accelerator": common.accelerator(),
        **{p: importlib.metadata.version(p) for p in packages},
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES"),
    }


def alternate(sides: dict[str, Side], repeats: int) -> tuple[list[dict], dict[str, dict]]:
    """Samples each side in turn, again and again.

    Returns:
      All samples in the order they were taken, and the median, min and max of each side.
    """
    samples = []
    for n in range(-WARM_UP, repeats):
        for name, side in sides.items():
            sample = {"side": name, "start": time.time(), "seconds": side()}
            if n >= 0:
                samples.append(sample)
    results = {}
    for name in sides:
        seconds = [s["seconds"] for s in samples if s["side"] == name]
        median = statistics.median(seconds)
        results[name] = {"median": median, "min": min(seconds), "max": max(seconds)}
    return samples, results


def timed(function: Callable[..., Any], *args: Any, calls: int = 1) -> Side:
    """Calls a JAX function and waits for it: mean seconds of a call."""
    import jax

    def side():
        begin = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(function(*args))
        return (time.perf_counter() - begin) / calls

    return side


def in_a_process(make: Callable[..., tuple[dict[str, Side], Any]], *args: Any) -> Any:
    """The sides that make(*args) gives, and its facts, in a process that sleeps between samples.

    Each model has its memory to itself, as in a run of its own.
    """
    # OpenMP's threads would otherwise spin beside the other side while they wait.
    for variable, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("KMP_BLOCKTIME", "0")):
        os.environ.setdefault(variable, value)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    spawn.Process(target=serve, args=(theirs, make, args), daemon=True).start()
    theirs.close()

    def receive():
        try:
            return ours.recv()
        except (EOFError, OSError):
            raise UserError(f"The process of {args[0]} ended; its error is above.") from None

    def ask(side):
        ours.send(side)
        return receive()

    names, facts = receive()
    return {name: functools.partial(ask, name) for name in names}, facts


def serve(pipe, make, args) -> None:
    """Answers each name of a side with a sample of it."""
    sides, facts = make(*args)
    pipe.send((list(sides), facts))
    while True:
        try:
            side = pipe.recv()
        except EOFError:  # the asker is gone
            return
        # Unmeasured: a virtual machine takes back what a sleeper had, and its caches are cold.
        sides[side]()
        pipe.send(sides[side]())


def milliseconds(result: dict[str, float]) -> str:
    median, low, high = (f"{result[k] * 1e3:,.1f}" for k in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    print(title)
    Console(width=max(Console().width, 120)).print(table)


# --- train-step ---


def benchmark_train_step(arguments: Arguments) -> dict[str, Any]:
    """A step from loss to update, against the machine's matmul peak and the peers."""
    from hybriko_jax.training.flops import matmul_flops_per_token

    model, shape = common.load_config(arguments.config).model, (arguments.batch, arguments.seq_len)
    steps: dict[str, Side] = {}
    facts: dict[str, Any] = {}
    for dtype in DTYPES:
        sides, facts["ours"] = in_a_process(our_step, arguments.config, dtype, *shape)
        steps |= sides
    n_params = facts["ours"]["parameters"]
    for name, wanted in (("Llama", arguments.peer), ("RecurrentGemma", arguments.peer_griffin)):
        if wanted:
            sides, facts[name] = in_a_process(peer_steps, name, model, n_params, *shape)
            steps |= sides
    # Those of one dtype side by side; then the machine's peak at that time.
    steps = dict(sorted(steps.items(), key=lambda side: DTYPES.index(side[0].split()[1])))
    matmuls, matmul_flops = matmul_sides()
    samples, results = alternate(steps | matmuls, arguments.repeats)
    peak = {dtype: matmul_flops / results[f"matmul {dtype}"]["min"] for dtype in DTYPES}
    flops = matmul_flops_per_token(model, arguments.seq_len) * math.prod(shape)
    rows = []
    for side in steps:
        result, (name, dtype) = results[side], side.split()
        result["tokens_per_second"] = math.prod(shape) / result["median"]
        if name == "ours":
            result["mfu"] = flops / result["median"] / peak[dtype]
        mfu = f"{result['mfu']:.1%}" if "mfu" in result else ""
        rows.append((side, milliseconds(result), f"{result['tokens_per_second']:,.0f}", mfu))
    size = f"{shape[0]} x {shape[1]} tokens, {flops / 1e9:,.1f} GFLOP"
    columns = ("side", "ms: median (min to max)", "tokens/s", "MFU")
    print_table(f"train step of {arguments.config}, {size}", columns, rows)
    print("matmul peak: " + ", ".join(f"{d} {p / 1e9:,.0f} GFLOP/s" for d, p in peak.items()))
    for name, values in facts.items():
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in values.items()))
    ratios = step_ratios({side: results[side]["median"] for side in steps})
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    report = {"models": facts, "flops": flops, "peak_flops": peak, "ratios": ratios}
    return report | {"results": results, "samples": samples}


def step_ratios(median: dict[str, float]) -> dict[str, float]:
    """How many times as fast ours is."""
    f32, bf16 = (median[f"ours {dtype}"] for dtype in DTYPES)
    ratios = {"ours, bfloat16 against float32": f32 / bf16}
    for name in ("Llama", "RecurrentGemma"):
        if f"{name} float32" in median:
            peer = [median[f"{name} {dtype}"] for dtype in DTYPES]
            ratios[f"float32 against {name}'s float32"] = peer[0] / f32
            ratios[f"bfloat16 against {name}'s faster dtype"] = min(peer) / bf16
    return ratios


def our_step(config: str, dtype: str, batch: int, seq_len: int) -> tuple[dict[str, Side], Any]:
    """A step of ours in one dtype, as a training run compiles it."""
    import jax

    from hybriko_jax.data.batch import Batch
    from hybriko_jax.models import build
    from hybriko_jax.sharding import batch_sharding, make_mesh
    from hybriko_jax.training.optimizer import make_optimizer
    from hybriko_jax.training.state import abstract_state, param_count
    from hybriko_jax.training.train import compile_step

    run = common.load_config(config)
    train = replace(run.train, batch_size=batch, seq_len=seq_len, accumulation=1)
    run = replace(run, model=replace(run.model, dtype=dtype), train=train)
    mesh, tx = make_mesh("1"), make_optimizer(run.optimizer, train.steps)
    rng = np.random.default_rng(0)
    tokens_BL = rng.integers(4, run.model.vocab_size, (batch, seq_len), np.int32)
    positions_BL = np.tile(np.arange(seq_len, dtype=np.int32), (batch, 1))
    data = Batch(tokens_BL, positions_BL, positions_BL > 0)
    data = jax.device_put(data, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        model = build(run.model)
        abstract, init = abstract_state(model, tx, train.seed, mesh)
        compiled = compile_step(model, tx, run, abstract, mesh)
        state = init()

    def step():
        nonlocal state
        state, measured = compiled(state, data)
        return measured

    return {f"ours {dtype}": timed(step)}, {"parameters": param_count(state.params)}


def peer_steps(
    name: str, model: HybriKoConfig, n_params: int, batch: int, seq_len: int
) -> tuple[dict[str, Side], dict[str, Any]]:
    """Steps of a model of transformers in each dtype."""
    import torch  # type: ignore

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    peer, facts = build_peer(name, model, n_params, seq_len)
    optimizer, facts["AdamW"] = fastest_adamw(list(peer.parameters()))
    tokens_BL = torch.randint(4, model.vocab_size, (batch, seq_len))
    optimizer.zero_grad()

    def step(dtype):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = peer(input_ids=tokens_BL, labels=tokens_BL, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    policy = os.environ["OMP_WAIT_POLICY"]
    facts |= {"threads": torch.get_num_threads(), "OMP_WAIT_POLICY": policy}
    return {f"{name} {d}": functools.partial(step, d) for d in DTYPES}, facts


def matmul_sides() -> tuple[dict[str, Side], float]:
    """The products that MFU is a share of, with float32 sums, and the FLOPs of one."""
    import jax
    import jax.numpy as jnp

    m, k, n = (2048, 768, 2304) if jax.default_backend() == "cpu" else (8192, 8192, 8192)
    dot = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32))
    sides = {
        f"matmul {d}": timed(dot, jnp.ones((m, k), d), jnp.ones((k, n), d), calls=8) for d in DTYPES
    }
    return sides, 2.0 * m * k * n


def benchmark_torch_step(arguments: Arguments) -> dict[str, Any]:
    """A step of the PyTorch model that exports carry, against RecurrentGemma's."""
    from hybriko_jax.convert.parameters import our_shapes

    model = common.load_config(arguments.config).model
    n_params = sum(math.prod(shape) for shape in our_shapes(model).values())
    steps: dict[str, Side] = {}
    facts: dict[str, Any] = {}
    for name in ("HybriKo", "RecurrentGemma"):
        shape = (arguments.batch, arguments.seq_len)
        sides, facts[name] = in_a_process(peer_steps, name, model, n_params, *shape)
        steps |= {side: step for side, step in sides.items() if "float32" in side}
    samples, results = alternate(steps, arguments.repeats)
    ours, theirs = (results[side]["median"] for side in steps)
    rows = [(side, milliseconds(result)) for side, result in results.items()]
    title = f"PyTorch step of {arguments.config}, {arguments.batch} x {arguments.seq_len} tokens"
    print_table(title, ("side", "ms: median (min to max)"), rows)
    print(f"HybriKo against RecurrentGemma: {theirs / ours:.2f}x")
    return {"models": facts, "ratio": theirs / ours, "results": results, "samples": samples}


def exported_model(model: HybriKoConfig) -> Any:
    """The PyTorch model that exports carry, with random weights."""
    import transformers  # type: ignore

    from hybriko_jax.convert.config import to_transformers
    from hybriko_jax.convert.transformers_folder import write_code

    with tempfile.TemporaryDirectory() as folder:
        write_code(Path(folder), to_transformers(model))
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
        return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=True)


def build_peer(name: str, model: HybriKoConfig, n_params: int, seq_len: int) -> tuple[Any, dict]:
    """A peer with an MLP so wide, in steps of 16, that it has as many parameters as ours."""
    import torch  # type: ignore
    import transformers  # type: ignore

    if name == "HybriKo":
        peer = exported_model(model).train()
        return peer, {"parameters": sum(p.numel() for p in peer.parameters())}

    def build(width):
        config = getattr(transformers, f"{name}Config")(
            vocab_size=model.vocab_size,
            hidden_size=model.d_model,
            intermediate_size=width,
            num_hidden_layers=model.n_layers,
            num_attention_heads=model.n_heads,
            num_key_value_heads=model.n_kv_heads,
            max_position_embeddings=seq_len,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
        return getattr(transformers, f"{name}ForCausalLM")(config)

    def count(peer):
        return sum(p.numel() for p in peer.parameters())

    with torch.device("meta"):
        one, two = count(build(16)), count(build(32))
    width = 16 * max(1, 1 + round((n_params - one) / (two - one)))
    peer = build(width).train()
    return peer, {"parameters": count(peer), "intermediate_size": width}


def fastest_adamw(parameters: list[Any]) -> tuple[Any, str]:
    """AdamW in the implementation that is faster here, and its name."""
    import torch  # type: ignore

    for p in parameters:
        p.grad = torch.zeros_like(p)
    timings = {}
    for kind in ("fused", "foreach"):
        options: dict[str, Any] = {kind: True}
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, **options)
        optimizer.step()  # makes the moments
        begin = time.perf_counter()
        for _ in range(3):
            optimizer.step()
        timings[time.perf_counter() - begin] = optimizer, kind
    return timings[min(timings)]


# --- recurrence ---


def benchmark_recurrence(arguments: Arguments) -> dict[str, Any]:
    """The RG-LRU's recurrence, as a CPU runs it, against a scan that JAX differentiates."""
    import jax
    import jax.numpy as jnp

    from hybriko_jax.layers.rg_lru import linear_recurrence

    def loop(a_BLW, b_BLW, h0_BW):
        return linear_recurrence(a_BLW, b_BLW, h0_BW, "loop")

    def both(recurrence, a_BLW, b_BLW, h0_BW, g_BLW):
        h_BLW, backward = jax.vjp(recurrence, a_BLW, b_BLW, h0_BW)
        return h_BLW, backward(g_BLW)

    B, W = 4, 768
    report, rows = {}, []
    for T in arguments.lengths:
        keys = jax.random.split(jax.random.key(0), 3)
        a_BLW = jax.random.uniform(keys[0], (B, T, W), minval=0.9, maxval=0.999)
        b_BLW, g_BLW = (jax.random.normal(k, (B, T, W)) for k in keys[1:])
        args, calls = (a_BLW, b_BLW, jnp.zeros((B, W))), max(1, 8192 // T)
        sides, temp = {}, {}
        for name, recurrence in (("scan", scan), ("ours", loop)):
            compiled = jax.jit(both, static_argnums=0).lower(recurrence, *args, g_BLW).compile()
            temp[name] = compiled.memory_analysis().temp_size_in_bytes  # type: ignore
            sides[f"forward {name}"] = timed(jax.jit(recurrence), *args, calls=calls)
            sides[f"both {name}"] = timed(compiled, *args, g_BLW, calls=calls)
        samples, results = alternate(dict(sorted(sides.items())), arguments.repeats)
        ratios = {"temp_bytes": temp["ours"] / max(temp["scan"], 1)}
        for what in ("forward", "both"):
            theirs, ours = results[f"{what} scan"], results[f"{what} ours"]
            ratios[what] = theirs["median"] / ours["median"]
            times = (milliseconds(theirs), milliseconds(ours), f"{ratios[what]:.2f}x")
            memory = tuple(f"{temp[n] / 1e6:,.2f}" for n in ("scan", "ours"))
            rows.append((f"{what}, T={T}", *times, *(memory if what == "both" else ())))
        report[f"T={T}"] = {"ratios": ratios, "temp_bytes": temp, "results": results}
        report[f"T={T}"]["samples"] = samples
    columns = ("forward, or both", "associative_scan", "ours", "ratio", "scan, temp MB", "ours")
    print_table(f"recurrence, B={B}, W={W}, ms: median (min to max)", columns, rows)
    return report


def scan(a_BLW, b_BLW, h0_BW):
    """The recurrence as one would first write it."""
    import jax

    def combine(left, right):
        (a_l, h_l), (a_r, h_r) = left, right
        return a_l * a_r, a_r * h_l + h_r

    b_BLW = b_BLW.at[:, 0].add(a_BLW[:, 0] * h0_BW)
    return jax.lax.associative_scan(combine, (a_BLW, b_BLW), axis=1)[1]


# --- data ---


def benchmark_data(arguments: Arguments) -> dict[str, Any]:
    """Packed batches from a prepared dataset as the trainer reads them, in windows of a second."""
    from hybriko_jax.data.loader import Rows, batches
    from hybriko_jax.data.packing import plan_epoch
    from hybriko_jax.data.prepare import prepare, train_tokenizer
    from hybriko_jax.sharding import make_mesh

    B, L = 64, 512
    config = DataConfig(source=arguments.data_source, held_out=0.02)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        with common.progress_line() as progress:
            tokenizer = train_tokenizer(config, TokenizerConfig(train_megabytes=4), 2000, progress)
            split = prepare(config, tokenizer, Path(directory), progress).train
        rows = Rows(split, (), L, 0, tokenizer.pad_id)
        stream = batches(rows, B, make_mesh("1"))

        def batch():
            begin, n = time.perf_counter(), 0
            while time.perf_counter() - begin < 1:
                next(stream)
                n += 1
            return (time.perf_counter() - begin) / n

        plan = timed(plan_epoch, split.length_N, split.source_N, (), L, 0, 0)
        samples, results = alternate({"plan of an epoch": plan}, arguments.repeats)
        # Not in turn with the plan: a batch that was read ahead meanwhile would cost nothing.
        more, batch_result = alternate({f"batch of {B} rows": batch}, arguments.repeats)
    n_tokens, fill = int(split.length_N.sum()), rows.plan(0).fill(L)
    result = results[f"batch of {B} rows"] = batch_result[f"batch of {B} rows"]
    speed = {"median": fill * B * L / result["median"], "best": fill * B * L / result["min"]}
    size = f"{len(split.length_N):,} documents, {n_tokens:,} tokens"
    table = [(side, milliseconds(result)) for side, result in results.items()]
    print_table(f"data, {size}, rows of {L}", ("side", "ms: median (min to max)"), table)
    print(f"fill {fill:.2%}, tokens/s: median {speed['median']:,.0f}, best {speed['best']:,.0f}")
    report = {"documents": len(split.length_N), "tokens": n_tokens, "fill": fill}
    return report | {"tokens_per_second": speed, "results": results, "samples": samples + more}


# --- decode ---

PROMPT, NEW = 200, 100  # tokens


def benchmark_decode(arguments: Arguments) -> dict[str, Any]:
    """A prompt read and continued greedily, one row and eight."""
    model = common.load_config(arguments.config).model
    report, rows = {}, []
    for batch in (1, 8):
        sides, facts = in_a_process(our_decode, model, batch)
        if arguments.peer_griffin:
            more, _ = in_a_process(peer_decode, "RecurrentGemma", model, facts["parameters"], batch)
            sides |= more
        samples, results = alternate(sides, arguments.repeats)
        for side, result in results.items():
            result["tokens_per_second"] = batch * NEW / result["median"]
            speed = f"{result['tokens_per_second']:,.1f}"
            rows.append((f"{side}, B={batch}", milliseconds(result), speed))
        report[f"B={batch}"] = {"results": results, "samples": samples}
        if len(results) > 1:
            ours, theirs = (r["median"] for r in results.values())
            report[f"B={batch}"]["ratio"] = theirs / ours
            rows.append(("  ours against it", "", f"{theirs / ours:.2f}x"))
    columns = ("side", "ms: median (min to max)", "tokens/s")
    print_table(f"decode of {arguments.config}, {NEW} tokens after {PROMPT}", columns, rows)
    return report


def our_decode(model: HybriKoConfig, batch: int) -> tuple[dict[str, Side], Any]:
    """Our generation, as launch.generate runs it."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from hybriko_jax.decode.generate import continuations
    from hybriko_jax.models import build
    from hybriko_jax.training.state import param_count

    module = build(replace(model, dtype="float32", remat=False))
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), tokens, tokens))["params"]
    rng = np.random.default_rng(0)
    prompts = rng.integers(4, model.vocab_size, (batch, PROMPT)).tolist()

    def side():
        begin = time.perf_counter()
        continuations(module, params, prompts, NEW, temperature=0)
        return time.perf_counter() - begin

    return {"ours": side}, {"parameters": param_count(params)}


def peer_decode(
    name: str, model: HybriKoConfig, n_params: int, batch: int
) -> tuple[dict[str, Side], Any]:
    """Generation of transformers, float32, with its cache."""
    import torch  # type: ignore

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    peer, facts = build_peer(name, model, n_params, PROMPT + NEW)
    peer.eval()
    tokens_BL = torch.randint(4, model.vocab_size, (batch, PROMPT))

    return {name: functools.partial(generated, peer, tokens_BL, NEW)}, facts


def generated(peer: Any, tokens_BL: Any, new: int, beams: int = 1) -> float:
    """Seconds that transformers takes to write so many tokens behind each row."""
    import torch  # type: ignore

    begin = time.perf_counter()
    with torch.inference_mode():
        peer.generate(
            tokens_BL,
            attention_mask=torch.ones_like(tokens_BL),
            num_beams=beams,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )
    return time.perf_counter() - begin


# --- answer ---

REQUESTS = (
    "디스크 사용량을 확인해줘",
    "보고서_최종(2).hwp 파일을 백업 폴더로 복사해 주세요",
    "'회의 자료' 폴더 안에서 pdf 파일만 찾아줘",
    "server.log에서 timeout이 나온 줄을 보여줘",
    "deploy.sh에 실행 권한 좀 줘",
    "고마워 오늘은 여기까지 하자",
)


def benchmark_answer(arguments: Arguments) -> dict[str, Any]:
    """Warm answers of the small model that calls tools, with the grammar and without it."""
    sides, tokens = in_a_process(answers, str(load.shipped(MODEL)))
    samples, results = alternate(sides, arguments.repeats)
    rows = []
    for side, result in results.items():
        one = f"{result['median'] / len(REQUESTS) * 1e3:,.1f}"
        rows.append(
            (side, milliseconds(result), one, f"{result['median'] / tokens[side] * 1e3:.2f}")
        )
    per_token = [results[side]["median"] / tokens[side] for side in results]
    rows.append(("  the grammar's part", "", "", f"{(per_token[0] - per_token[1]) * 1e3:.2f}"))
    columns = ("side", "ms: median (min to max)", "ms an answer", "ms a token")
    print_table(
        f"{len(REQUESTS)} answers, one after the other, hybriko-mini-linuxfc", columns, rows
    )
    return {"tokens": tokens, "results": results, "samples": samples}


def answers(folder: str) -> tuple[dict[str, Side], dict[str, int]]:
    """Answers behind the kept prefix, as launch.ask gives them."""
    from hybriko_jax.evaluate.function_calling import Question, predict
    from hybriko_jax.models import build

    loaded = load.checkpoint(Path(folder))
    model = build(loaded.config)
    prefix = kept_prefix(loaded, model, Path(folder))

    def answer(query, grounded):
        question = Question("", ({"role": "user", "content": query},), "", ())
        how: Any = {"system": "", "grounded": grounded, "batch_size": 1, "prefix": prefix}
        (given,) = predict(model, loaded.params, loaded.tokenizer, [question], **how)
        return len(loaded.tokenizer.encode(given.text)) + 1

    def side(grounded):
        begin = time.perf_counter()
        for query in REQUESTS:
            answer(query, grounded)
        return time.perf_counter() - begin

    ways = {"grounded": True, "not grounded": False}
    tokens = {name: sum(answer(q, way) for q in REQUESTS) for name, way in ways.items()}
    return {name: functools.partial(side, way) for name, way in ways.items()}, tokens


# --- prefix ---


def benchmark_prefix(arguments: Arguments) -> dict[str, Any]:
    """SFT behind the full prompt: the prompt run once a step, against once a sample."""
    B, L = 16, 128
    folder = str(Path(__file__).parent.parent / "checkpoints" / "hybriko-mini")
    sides, facts = in_a_process(prefix_steps, folder, B, L)
    samples, results = alternate(sides, arguments.repeats)
    shared, apart = (results[name]["median"] for name in ("shared prefix", "per sample"))
    rows = [(side, milliseconds(r), f"{B / r['median']:,.1f}", "") for side, r in results.items()]
    rows[0] = (*rows[0][:3], f"{apart / shared:.2f}x")
    columns = ("side", "ms: median (min to max)", "samples/s", "ratio")
    title = f"loss and gradients of {B} samples of {L} tokens behind {facts['prompt']:,}"
    print_table(f"{title}, hybriko-mini", columns, rows)
    return {"facts": facts, "ratio": apart / shared, "results": results, "samples": samples}


def prefix_steps(folder: str, batch: int, length: int) -> tuple[dict[str, Side], Any]:
    """Gradients of a batch, with the prompt shared and with one before every sample."""
    import jax
    import jax.numpy as jnp

    from hybriko_jax.data.batch import Batch
    from hybriko_jax.linux.tools import TOOLS
    from hybriko_jax.models import build
    from hybriko_jax.prompts import chat_tokens, system_prompt
    from hybriko_jax.training.step import loss_sums

    loaded = load.checkpoint(Path(folder))
    model, params = build(replace(loaded.config, max_seq_len=4096)), loaded.params
    system = system_prompt("full", [tool.schema for tool in TOOLS])
    message = {"role": "system", "content": system}
    prefix_P = chat_tokens(loaded.tokenizer, [message])[0]
    rows_BL = np.random.default_rng(0).integers(300, 7000, (batch, length), np.int32)

    def loss(params, tokens_BL, prefix_P):
        positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
        mask_BL = positions_BL >= tokens_BL.shape[1] - length // 2
        data = Batch(tokens_BL, positions_BL, mask_BL)
        return loss_sums(model, params, data, chunk=512, prefix_P=prefix_P)[0]

    def two_by_two(params):
        """All rows whole; two at a time, since 16 at once need 45 GB."""
        parts = whole_BL.reshape(batch // 2, 2, -1)
        zero = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)

        def add(total, part_BL):
            return jax.tree.map(jnp.add, total, gradients(params, part_BL, None)), None

        return jax.lax.scan(add, zero, parts)[0]

    gradients = jax.value_and_grad(loss)
    whole_BL = jnp.concatenate([jnp.tile(prefix_P, (batch, 1)), rows_BL], axis=1)
    shared = jax.jit(lambda params: gradients(params, rows_BL, prefix_P))
    apart = jax.jit(two_by_two)
    sides = {"shared prefix": timed(shared, params), "per sample": timed(apart, params)}
    return sides, {"prompt": len(prefix_P)}


# --- lora ---


def benchmark_lora(arguments: Arguments) -> dict[str, Any]:
    """A step of launch.lora on a GPT-NeoX, against PEFT's (and bitsandbytes')."""
    report: dict[str, Any] = {}
    rows = []
    B, L = arguments.batch, arguments.seq_len
    with tempfile.TemporaryDirectory() as folder:
        base = str(arguments.base or write_base(Path(folder), "gugugo_v09"))
        for precision in arguments.precisions:
            steps, peaks, loading = {}, {}, {}
            for name, make in (("ours", our_lora_step), ("peft", peft_step)):
                sides, loading[name] = in_a_process(make, f"{name} {precision}", base, B, L)
                steps[name], peaks[name] = sides["step"], sides["peak"]
            samples, results = alternate(steps, arguments.repeats)
            ratio = results["ours"]["median"] / results["peft"]["median"]
            training = {name: peak() for name, peak in peaks.items()}
            for name, result in results.items():
                memory = f"{loading[name]:.2f}", f"{training[name]:.2f}"
                rows.append((f"{name} {precision}", milliseconds(result), *memory))
            rows.append(("ours over peft", f"{ratio:.2f}x", "", ""))
            peak_gib = {"loading": loading, "training": training}
            report[precision] = {"ratio": ratio, "peak_gib": peak_gib, "results": results}
            report[precision]["samples"] = samples
    columns = ("side", "ms: median (min to max)", "peak GiB, loading", "training")
    print_table(f"LoRA step, {B} x {L} tokens, loss on half of them", columns, rows)
    return report


def write_base(folder: Path, name: str) -> Path:
    """A folder of transformers: a config's shape, with random weights in bfloat16."""
    import torch  # type: ignore
    import transformers  # type: ignore

    from hybriko_jax.convert.config import to_transformers

    described = to_transformers(common.load_config(name).model)
    torch.set_default_dtype(torch.bfloat16)
    config = transformers.GPTNeoXConfig(**described)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    return folder


def peak_gib() -> float:
    """The most memory that this process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def lora_rows(vocab_size: int, batch: int, seq_len: int) -> np.ndarray:
    """Random tokens_BL; the second half of a row is the answer."""
    return np.random.default_rng(0).integers(4, vocab_size, (batch, seq_len))


def our_lora_step(name: str, base: str, batch: int, seq_len: int) -> tuple[dict[str, Side], float]:
    """A step of launch.lora, and GiB at most while the base was loaded."""
    import jax

    from hybriko_jax.convert.folder import load_weights
    from hybriko_jax.data.batch import Batch
    from hybriko_jax.models import build
    from hybriko_jax.sharding import batch_sharding, make_mesh
    from hybriko_jax.training.optimizer import make_optimizer
    from hybriko_jax.training.state import abstract_state, place_frozen
    from hybriko_jax.training.train import compile_step

    precision: Any = name.split()[1]
    run = common.load_config("gugugo_v09")
    dtype = "float32" if precision == "float32" else "bfloat16"
    mesh, tx = make_mesh("1"), make_optimizer(run.optimizer, 1000)
    config, *params = load_weights(Path(base), precision)
    model = build(replace(config, dtype=dtype, remat=precision != "float32"))
    frozen = place_frozen(model, params, mesh, run.lora)
    loading = peak_gib()
    forget_peak()
    train = replace(run.train, epochs=None, batch_size=batch, seq_len=seq_len, accumulation=1)
    run = replace(run, model=model.config, train=train)
    tokens_BL = lora_rows(config.vocab_size, batch, seq_len).astype(np.int32)
    positions_BL = np.tile(np.arange(seq_len, dtype=np.int32), (batch, 1))
    data = Batch(tokens_BL, positions_BL, positions_BL >= seq_len // 2)
    data = jax.device_put(data, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        abstract, init = abstract_state(model, tx, 0, mesh, run.lora)
        compiled = compile_step(model, tx, run, abstract, mesh, frozen=frozen)
        state = init()

    def step():
        nonlocal state
        state, measured = compiled(state, data, frozen)
        return measured

    return {"step": timed(step), "peak": peak_gib}, loading


def peft_step(name: str, base: str, batch: int, seq_len: int) -> tuple[dict[str, Side], float]:
    """The same by transformers and PEFT, in eager PyTorch."""
    import peft  # type: ignore
    import torch  # type: ignore
    import transformers  # type: ignore

    torch.set_num_threads(os.cpu_count() or 1)
    precision, lora = name.split()[1], common.load_config("gugugo_v09").lora
    how: dict[str, Any] = {"dtype": torch.float32 if precision == "float32" else torch.bfloat16}
    if precision == "nf4":
        how["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(base, **how)
    loading = peak_gib()
    forget_peak()
    assert lora is not None
    adapter = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=[lora.targets],
    )
    model = peft.get_peft_model(model, adapter).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    tokens_BL = torch.from_numpy(lora_rows(model.config.vocab_size, batch, seq_len))
    labels_BL = tokens_BL.clone()
    labels_BL[:, : seq_len // 2] = -100

    def step():
        begin = time.perf_counter()
        model(input_ids=tokens_BL, labels=labels_BL, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    return {"step": step, "peak": peak_gib}, loading


# --- translate ---

SENTENCE = 48  # tokens of a text, and of its translation


def benchmark_translate(arguments: Arguments) -> dict[str, Any]:
    """Greedy and beam search of a GPT-NeoX against transformers, each in its faster type."""
    report: dict[str, Any] = {}
    rows = []
    B, types = arguments.batch, [p for p in arguments.precisions if p != "nf4"]
    ours = [*types, "int8"]
    name = arguments.config if arguments.config != Arguments.config else "neox_mini"
    with tempfile.TemporaryDirectory() as folder:
        base = str(arguments.base or write_base(Path(folder), name))
        sides: dict[str, Side] = {}
        for who, make in (("ours", our_search), ("transformers", peer_search)):
            for dtype in ours if who == "ours" else types:
                more, _ = in_a_process(make, f"{who} {dtype}", base, B)
                sides |= {f"{who} {dtype}, {beams}": side for beams, side in more.items()}
        for beams in BEAMS:
            chosen = {side: f for side, f in sides.items() if side.endswith(f", {beams}")}
            samples, results = alternate(chosen, arguments.repeats)
            best = {
                who: min(r["median"] for side, r in results.items() if side.startswith(who))
                for who in ("ours", "transformers")
            }
            for side, result in results.items():
                speed = f"{B * SENTENCE / result['median']:,.1f}"
                rows.append((side, milliseconds(result), speed))
            ratio = best["transformers"] / best["ours"]
            rows.append(("  ours against it", "", f"{ratio:.2f}x"))
            report[beams] = {"ratio": ratio, "results": results, "samples": samples}
    columns = ("side", "ms: median (min to max)", "tokens/s")
    shape = f"{B} x {SENTENCE} tokens after {SENTENCE}"
    print_table(f"translation by {arguments.base or name}, {shape}", columns, rows)
    return report


BEAMS = {"greedy": 1, "beam 5": 5}


def our_search(name: str, base: str, batch: int) -> tuple[dict[str, Side], Any]:
    """Beam search as launch.translate runs it, to the most tokens."""
    import jax

    from hybriko_jax.convert.folder import load_weights
    from hybriko_jax.decode.beam import beam_search
    from hybriko_jax.models import build

    dtype: Any = name.split()[1]
    config, params = load_weights(Path(base), dtype)
    dtype = "bfloat16" if dtype == "bfloat16" else "float32"
    model, params = build(replace(config, dtype=dtype, remat=False)), jax.device_put(params)
    prompts = lora_rows(config.vocab_size, batch, SENTENCE).tolist()

    def side(beams: int) -> float:
        begin = time.perf_counter()
        beam_search(model, params, prompts, SENTENCE, beams=beams)
        return time.perf_counter() - begin

    return {how: functools.partial(side, beams) for how, beams in BEAMS.items()}, None


def peer_search(name: str, base: str, batch: int) -> tuple[dict[str, Side], Any]:
    """The same by generate of transformers."""
    import torch  # type: ignore
    import transformers  # type: ignore

    torch.set_num_threads(os.cpu_count() or 1)
    dtype = getattr(torch, name.split()[1])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()
    tokens_BL = torch.from_numpy(lora_rows(model.config.vocab_size, batch, SENTENCE))
    return {
        how: functools.partial(generated, model, tokens_BL, SENTENCE, beams)
        for how, beams in BEAMS.items()
    }, None


BENCHMARKS = {
    "train-step": benchmark_train_step,
    "torch-step": benchmark_torch_step,
    "recurrence": benchmark_recurrence,
    "data": benchmark_data,
    "decode": benchmark_decode,
    "answer": benchmark_answer,
    "prefix": benchmark_prefix,
    "lora": benchmark_lora,
    "translate": benchmark_translate,
}

if __name__ == "__main__":
    common.run(main)
