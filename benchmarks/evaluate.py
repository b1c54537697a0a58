"""Measure the local engine beside lm-evaluation-harness: same model, same prompts, same machine, turn by turn.

Run `python -m benchmarks.evaluate`. The peer lives in an environment of its own under `.cache/benchmarks/`, in a
process that stays alive, so that neither side's loading is measured. Both sides get their best batch size of the
same list. Each round times the peer, then the engine, then a matrix product; ratios are medians over rounds of
the two times of one round, so that other load on the machine hits both.

Two tables: prompts of 300 tokens of which 290 are shared, and prompts of 300 tokens that share nothing but the
chat template's opening. `limit_share` is how near the engine comes to the machine's own limit: the time that its
multiplications (counted below) would take at the speed of a float32 product of 2048 x 2048 matrices, measured
in the same round with the same threads, divided by the time it took.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PEER = "0.4.13"
ENVIRONMENT = Path(".cache/benchmarks/lm-eval")
PROMPT_TOKENS, SHARED_TOKENS, NEW_TOKENS = 300, 290, 24
BATCH_SIZES = (16, 32, 64)
BASE = Path("models/base")


class Peer:
    """lm-evaluation-harness in its own process, spoken to in JSON lines."""

    def __init__(self, model: Path, threads: int) -> None:
        python = install_peer()
        self._log = ENVIRONMENT / "peer.log"
        # -P: this folder's modules must not hide the standard library's.
        self._process = subprocess.Popen(
            [python, "-P", __file__, "--serve-peer", str(threads), "--model", str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
        )

    def answer(self, prompts: list[str], batch_size: int) -> tuple[list[str], float]:
        """Return answers and seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"prompts": prompts, "batch_size": batch_size}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: lm-evaluation-harness died; {self._log} says why")
        reply = json.loads(line)
        return reply["answers"], reply["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def install_peer() -> str:
    """Install the peer once, with this project's versions of torch and transformers; return its Python."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / f"ready-{PEER}"
    if not ready.exists():
        print(f"Installing lm_eval {PEER} under {ENVIRONMENT} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # torch first: a CPU build that is already there satisfies what would else pull the CUDA build.
        version = importlib.metadata.version
        subprocess.run([*pip, f"torch=={version('torch').partition('+')[0]}"], check=True)
        subprocess.run([*pip, f"lm_eval[hf]=={PEER}", f"transformers=={version('transformers')}"], check=True)
        ready.touch()
    return str(python)


def serve_peer(model: Path, threads: int) -> None:
    """Answer requests from standard input with lm-evaluation-harness; runs in its environment."""
    replies = sys.stdout
    sys.stdout = sys.stderr  # the harness prints
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(threads)
    harness = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
    for line in sys.stdin:
        request = json.loads(line)
        harness.batch_size_per_gpu = request["batch_size"]
        options = {"until": ["<|im_end|>"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
        instances = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, options), idx=0)
            for prompt in request["prompts"]
        ]
        start = time.perf_counter()
        answers = harness.generate_until(instances, disable_tqdm=True)
        seconds = time.perf_counter() - start
        replies.write(json.dumps({"answers": answers, "seconds": seconds}) + "\n")
        replies.flush()


def make_requests(tokenizer: Any, count: int, *, shared: int) -> list[Any]:
    """Return requests of about PROMPT_TOKENS tokens whose first `shared` are equal.

    The text is the example's own messages, in an order drawn from a fixed seed.
    """
    from pipelines.llm.answers import Request
    from pipelines.llm.local_model import chat_ids
    from pipelines.llm.prompts import Message

    draw = random.Random(7)
    messages = [json.loads(line)["message"] for line in Path("data/triage.jsonl").read_text().splitlines()]

    def text(tokens: int) -> str:
        words = " ".join(draw.sample(messages, 60))
        ids = tokenizer(words, add_special_tokens=False)["input_ids"]
        return str(tokenizer.decode(ids[:tokens]))

    frame = len(chat_ids(tokenizer, [Message("system", "."), Message("user", ".")]))
    system = Message("system", text(shared - frame))
    chats = [
        (system, Message("user", text(PROMPT_TOKENS - shared)))
        if shared
        else (Message("system", text(PROMPT_TOKENS // 2)), Message("user", text(PROMPT_TOKENS // 2 - frame)))
        for _ in range(count)
    ]
    return [Request(str(number), chat, max_tokens=NEW_TOKENS) for number, chat in enumerate(chats)]


def operations(model: Any, prefix: int, prompt_tokens: list[int], new_tokens: list[int]) -> float:
    """Count the floating-point operations that answering needs, each multiplication and addition one.

    Two per weight and token that passes through it: every layer for the prefix once, for each prompt's rest and for
    all new tokens but the last; the output layer once per new token. Attention: four per head size and pair of tokens.
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    layers = sum(module.weight.numel() for name, module in model.named_modules() if hasattr(module, "in_features")) - (
        0 if model.lm_head is None else head
    )
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    total = 2.0 * layers * prefix + 4.0 * width * prefix * prefix / 2
    for prompt, new in zip(prompt_tokens, new_tokens, strict=True):
        own = prompt - prefix + new - 1
        total += 2.0 * layers * own + 2.0 * head * new + 4.0 * width * own * (prefix + own / 2)
    return total


def product_speed() -> float:
    """Return this machine's float32 operations per second in a large matrix product."""
    import torch

    a = torch.randn(2048, 2048)
    a @ a
    start = time.perf_counter()
    for _ in range(8):
        a @ a
    return 8 * 2 * 2048**3 / (time.perf_counter() - start)


def compare(engine: Any, local: Any, peer: Peer, *, count: int, shared: int, rounds: int) -> dict[str, Any]:
    """Measure both sides on one kind of prompts."""
    from pipelines.llm.local_model import chat_ids

    tokenizer = local.tokenizer
    requests = make_requests(tokenizer, count, shared=shared)
    prompts = [
        tokenizer.apply_chat_template([m._asdict() for m in r.messages], add_generation_prompt=True, tokenize=False)
        for r in requests
    ]
    ids = [chat_ids(tokenizer, request.messages) for request in requests]

    def ours(batch_size: int) -> tuple[list[Any], float]:
        engine.batch_size = batch_size
        engine._prefix = None  # every run computes the prefix itself
        start = time.perf_counter()
        answers = engine.answer(requests)
        return answers, time.perf_counter() - start

    sizes = [size for size in BATCH_SIZES if size <= count] or [count]
    best = min(sizes, key=lambda size: ours(size)[1])
    peer_best = min(sizes, key=lambda size: peer.answer(prompts, size)[1])
    # Of each round: seconds of the peer, seconds of the engine, speed of the machine.
    timed = []
    for number in range(rounds):
        peer_answers, peer_seconds = peer.answer(prompts, peer_best)
        answers, seconds = ours(best)
        timed.append((peer_seconds, seconds, product_speed()))
        print(f"round {number + 1}: peer {peer_seconds:.1f} s, engine {seconds:.1f} s", file=sys.stderr)
    prefix = next(place for place in range(PROMPT_TOKENS) if len({row[place] for row in ids}) > 1)
    new = [answer.completion_tokens for answer in answers]
    needed = operations(local.model, prefix if shared else 0, [len(row) for row in ids], new)
    return {
        "examples": count,
        "prompt_tokens": statistics.mean(len(row) for row in ids),
        "shared_tokens": prefix,
        "new_tokens": statistics.mean(new),
        "batch_size": best,
        "peer_batch_size": peer_best,
        "examples_per_s": count / statistics.median(ours for _, ours, _ in timed),
        "peer_examples_per_s": count / statistics.median(theirs for theirs, _, _ in timed),
        "ratio": statistics.median(theirs / ours for theirs, ours, _ in timed),
        "identical_rate": statistics.mean(a.text == b for a, b in zip(answers, peer_answers, strict=True)),
        "limit_share": statistics.median(needed / speed / ours for _, ours, speed in timed),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=BASE, help="folder of a local base model")
    parser.add_argument("--examples", type=int, default=64, help="prompts per table")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both sides")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve-peer", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_peer:
        return serve_peer(arguments.model, arguments.serve_peer)
    import torch
    import transformers

    from pipelines.core.stages import reproduce
    from pipelines.llm.engine import Engine
    from pipelines.llm.local_model import load

    if arguments.model == BASE and not BASE.exists():
        reproduce(targets=("fetch@base",))
    transformers.utils.logging.disable_progress_bar()
    local = load(arguments.model, precision="float32", device="cpu")
    engine = Engine(local, batch_size=1, cache=None)
    peer = Peer(arguments.model, torch.get_num_threads())
    try:
        tables = [
            compare(engine, local, peer, count=arguments.examples, shared=shared, rounds=arguments.rounds)
            for shared in (SHARED_TOKENS, 0)
        ]
    finally:
        peer.close()
    if arguments.json:
        print(
            json.dumps({**tables[0], "unshared": tables[1], "threads": torch.get_num_threads(), "peer_version": PEER})
        )
        return None
    print(f"{'':24}{'prefix shared':>16}{'nothing shared':>16}")
    for key, value in tables[0].items():
        print(f"{key:24}{value:>16.4g}{tables[1][key]:>16.4g}")
    return None


if __name__ == "__main__":
    if "--serve-peer" in sys.argv:  # in the peer's environment, which has nothing of ours
        main()
    else:
        from pipelines.core.command import run

        run(main)
