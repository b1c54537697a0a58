"""The local engine gives the answers of one prompt at a time, whatever it shares, batches, drops or resumes."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.core.errors import ConfigError
from pipelines.llm.answers import AnswerCache, Request
from pipelines.llm.decoding import draw
from pipelines.llm.engine import Engine
from pipelines.llm.identity import engine_digest
from pipelines.llm.json_values import JsonScanner
from pipelines.llm.local_model import LocalModel, chat_ids, load
from pipelines.llm.prompts import Message

SYSTEM = "Label the customer's message for the support desk. Answer with JSON only: intent, product, urgency."
MESSAGES = [
    "My doorbell stopped ringing after the update.",
    "Where is my parcel? I ordered a speaker two weeks ago!",
    "Hi",
    "Please cancel my plan. " * 12,
    "refund",
    "The thermostat is cold, the hub is off, and the speaker will not pair with anything I own. " * 3,
    'Ignore this: {"intent": "cancel"}',
]


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights: as it is, it repeats its last token and would agree with anything."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.6 if "embed" in name else 0.25)
    copy = tmp_path_factory.mktemp("lively") / "base"
    model.save_pretrained(copy)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(copy)
    (copy / "model.json").write_text((tiny_model / "model.json").read_text())
    return copy


@pytest.fixture(scope="module")
def reference(folder: Path) -> LocalModel:
    return load(folder, precision="float32", device="cpu")


def make_engine(folder: Path, *, batch_size: int = 8, cache: AnswerCache | None = None) -> Engine:
    return Engine(load(folder, precision="float32", device="cpu"), batch_size=batch_size, cache=cache)


@pytest.fixture
def engine(folder: Path) -> Engine:
    return make_engine(folder)


def make_requests(
    count: int = 28, *, system: str | None = SYSTEM, max_tokens: int = 20, **changes: Any
) -> list[Request]:
    opening = () if system is None else (Message("system", system),)
    return [
        Request(
            f"row-{number}",
            (*opening, Message("user", f"{MESSAGES[number % len(MESSAGES)]} {number * 37}")),
            max_tokens=1 + (max_tokens * (number + 3)) % max_tokens if number % 5 == 0 else max_tokens,
            **changes,
        )
        for number in range(count)
    ]


def generate_alone(reference: LocalModel, request: Request) -> str:
    """Answer with transformers' own `generate`, one prompt, no padding, nothing shared."""
    ids = chat_ids(reference.tokenizer, request.messages)
    output = reference.model.generate(torch.tensor([ids]), max_new_tokens=request.max_tokens, do_sample=False)
    return str(reference.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


@pytest.mark.parametrize("system", [SYSTEM, None], ids=["shared prefix", "nothing shared"])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_answers_are_those_of_one_prompt_at_a_time(
    folder: Path, reference: LocalModel, system: str | None, batch_size: int
):
    requests = make_requests(system=system)
    answers = make_engine(folder, batch_size=batch_size).answer(requests)
    expected = [generate_alone(reference, request) for request in requests]
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > len(expected) // 2, "the model must not say the same to everything"


def test_rows_of_one_length_are_answered_as_alone(engine: Engine, reference: LocalModel):
    requests = [Request(str(n), (Message("user", f"order {n}"),), max_tokens=12) for n in range(10, 16)]
    assert [answer.text for answer in engine.answer(requests)] == [generate_alone(reference, r) for r in requests]


def test_a_row_stops_at_the_end_token_while_others_go_on(folder: Path, reference: LocalModel):
    requests = make_requests(max_tokens=60)
    ids = [chat_ids(reference.tokenizer, request.messages) for request in requests]
    outputs = [reference.model.generate(torch.tensor([row]), max_new_tokens=60, do_sample=False)[0] for row in ids]
    # Make an end token of one that the model does say, in some answers early, in some never.
    said = [set(output[len(row) + 5 :].tolist()) for row, output in zip(ids, outputs, strict=True)]
    token = max(range(len(reference.tokenizer)), key=lambda t: min(sum(t in s for s in said), len(said) // 2))
    local = load(folder, precision="float32", device="cpu")
    local.model.generation_config.eos_token_id = [local.tokenizer.eos_token_id, token]
    answers = Engine(local, batch_size=32, cache=None).answer(requests)
    stopped = 0
    for request, row, output, answer in zip(requests, ids, outputs, answers, strict=True):
        new = output[len(row) :].tolist()[: request.max_tokens]
        if token in new:
            stopped += 1
            assert answer.finish_reason == "stop"
            assert answer.completion_tokens == new.index(token) + 1
            assert answer.text == reference.tokenizer.decode(new[: new.index(token)], skip_special_tokens=True)
    assert 0 < stopped < len(requests)


def test_an_answer_cut_off_says_so_and_counts_its_tokens(engine: Engine, reference: LocalModel):
    [request] = make_requests(1)
    [answer] = engine.answer([request._replace(max_tokens=3)])
    assert (answer.finish_reason, answer.completion_tokens, answer.state) == ("length", 3, "scored")
    assert answer.prompt_tokens == len(chat_ids(reference.tokenizer, request.messages))


def test_repeats_differ_when_sampled_and_not_when_greedy(engine: Engine):
    [request] = make_requests(1)
    repeats = [request._replace(repeat=number) for number in range(6)]
    assert len({answer.text for answer in engine.answer(repeats)}) == 1
    assert len({answer.text for answer in engine.answer([r._replace(temperature=1.0) for r in repeats])}) > 1


def test_a_sampled_answer_does_not_depend_on_its_neighbours(folder: Path):
    requests = make_requests(temperature=0.9, top_p=0.95)
    together = make_engine(folder, batch_size=64).answer(requests)
    shuffled = list(range(len(requests)))
    random.Random(5).shuffle(shuffled)
    apart = make_engine(folder, batch_size=3).answer([requests[place] for place in shuffled])
    assert [apart[shuffled.index(place)].text for place in range(len(requests))] == [a.text for a in together]


def test_equal_questions_are_computed_once(engine: Engine):
    rows = []
    engine._local.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    [request] = make_requests(1, max_tokens=5)
    answers = engine.answer([request._replace(id=str(number)) for number in range(7)])
    assert len({answer.text for answer in answers}) == 1
    assert set(rows) == {1}


def test_drawing_follows_the_distribution_and_its_nucleus():
    logits = torch.tensor([0.1, 0.6, 0.3]).log()
    places = [(number + 0.5) / 1000 for number in range(1000)]
    drawn = [draw(logits, 1.0, 1.0, uniform) for uniform in places]
    assert [drawn.count(token) for token in range(3)] == [100, 600, 300]
    nucleus = [draw(logits, 1.0, 0.8, uniform) for uniform in places]
    assert [nucleus.count(token) for token in range(3)] == [0, 667, 333]  # 0.6 / 0.9 and 0.3 / 0.9
    assert {draw(logits, 1.0, 0.5, uniform) for uniform in places} == {1}
    # At temperature 0.5 probabilities are squared: 0.01, 0.36 and 0.09 of 0.46.
    assert [draw(logits, 0.5, 1.0, uniform) for uniform in places].count(1) == round(1000 * 0.36 / 0.46)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1} and more', '{"a": 1}'),
        ('Sure: {"a": {"b": [1, 2]}}}', '{"a": {"b": [1, 2]}}'),
        (r'{"a": "}\"}"} x', r'{"a": "}\"}"}'),
        ('"quoted" [1, "]"] tail', '[1, "]"]'),
        ('{"a": 1', None),
        ('{"a": "}', None),
        ("no value } at all", None),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_end_of_a_json_value_is_found_in_pieces_of_any_size(text: str, value: str | None, size: int):
    scanner = JsonScanner()
    read = ""
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        end = scanner.feed(piece)
        if end is not None:
            read += piece[:end]
            break
        read += piece
    assert read == text if value is None else read.endswith(value)
    assert value is None or len(read) == text.index(value) + len(value)


def teach(local: LocalModel, question: tuple[Message, ...], answer: str) -> None:
    """Train the tiny model until it gives this answer."""
    prompt = chat_ids(local.tokenizer, question)
    gold = local.tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids, labels = torch.tensor([prompt + gold]), torch.tensor([[-100] * len(prompt) + gold])
    optimizer = torch.optim.AdamW(local.model.parameters(), lr=3e-3)
    for _ in range(80):
        local.model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_an_answer_ends_where_its_json_value_closes(tiny_model: Path):
    question = (Message("user", "Where is my parcel?"),)
    local = load(tiny_model, precision="float32", device="cpu")
    teach(local, question, '{"intent": "delivery", "note": "a } b"} That is all. {"x": 1}')
    engine = Engine(local, batch_size=4, cache=None)
    request = Request("row", question, max_tokens=60, wants_json=True)
    whole, cut = engine.answer([request._replace(wants_json=False), request])
    assert whole.text.startswith('{"intent": "delivery", "note": "a } b"} That is all.')
    assert cut.text == '{"intent": "delivery", "note": "a } b"}'
    assert (cut.finish_reason, cut.state) == ("stop", "scored")
    assert cut.completion_tokens < whole.completion_tokens


def test_a_prompt_beyond_the_context_is_the_model_s_error_and_stops_nobody(engine: Engine, reference: LocalModel):
    requests = make_requests(3)
    context = reference.model.config.max_position_embeddings
    long = requests[1]._replace(messages=(Message("user", "parcel " * context),))
    answers = engine.answer([requests[0], long, requests[2]])
    assert [answer.state for answer in answers] == ["scored", "model_error", "scored"]
    assert answers[1].error.startswith(f"the prompt has {answers[1].prompt_tokens} tokens, the model takes fewer than")
    assert engine.time_one(long).state == "model_error"


def test_an_answer_ends_at_the_end_of_the_context(engine: Engine, reference: LocalModel):
    context = reference.model.config.max_position_embeddings
    tokenizer = reference.tokenizer
    words = 1
    while len(chat_ids(tokenizer, [Message("user", "x" * (words + 1))])) <= context - 4:
        words += 1
    request = Request("row", (Message("user", "x" * words),), max_tokens=50)
    [answer] = engine.answer([request])
    assert answer.prompt_tokens + answer.completion_tokens == context
    assert answer.finish_reason == "length"


def test_output_that_is_not_finite_is_an_infrastructure_error_and_not_cached(folder: Path, tmp_path: Path):
    cache = AnswerCache(tmp_path)
    local = load(folder, precision="float32", device="cpu")
    with torch.no_grad():
        local.model.model.norm.weight[0] = float("nan")
    answers = Engine(local, batch_size=4, cache=cache).answer(make_requests(5))
    assert {answer.state for answer in answers} == {"infra_error"}
    assert "not finite" in answers[0].error
    assert list(tmp_path.iterdir()) == []


def test_one_poisoned_row_does_not_touch_the_others(folder: Path, reference: LocalModel):
    local = load(folder, precision="float32", device="cpu")
    requests = make_requests(6)
    [token] = reference.tokenizer("€", add_special_tokens=False)["input_ids"][:1]
    poisoned = requests[2]._replace(messages=(*requests[2].messages, Message("user", "€")))
    with torch.no_grad():
        local.model.model.embed_tokens.weight[token] = float("nan")
        local.model.lm_head.weight = torch.nn.Parameter(reference.model.lm_head.weight.detach().clone())
    answers = Engine(local, batch_size=8, cache=None).answer([*requests[:2], poisoned, *requests[3:]])
    assert answers[2].state == "infra_error"
    others = [0, 1, 3, 4, 5]
    assert [answers[place].text for place in others] == [generate_alone(reference, requests[place]) for place in others]


def test_gold_nll_is_the_model_s_own_loss(engine: Engine, reference: LocalModel):
    requests = make_requests(14)
    golds = ['{"intent": "cancel", "product": "plan"}', "no", "yes, it is on its way", "A", "Ω"] * 3
    values = engine.gold_nll(requests, golds[:14])
    for request, gold, value in zip(requests, golds, values, strict=False):
        prompt = chat_ids(reference.tokenizer, request.messages)
        answer = reference.tokenizer(gold, add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.inference_mode():
            expected = float(reference.model(torch.tensor([prompt + answer]), labels=labels).loss)
        assert value == pytest.approx(expected, rel=1e-4)


def test_gold_nll_of_nothing_or_of_too_much_is_missing(engine: Engine):
    values = engine.gold_nll(make_requests(3), ["", "parcel " * 3000, "yes"])
    assert [math.isnan(value) for value in values] == [True, True, False]


def test_a_second_run_comes_from_the_cache(folder: Path, tmp_path: Path):
    cache = AnswerCache(tmp_path)
    requests = make_requests(9)
    engine = make_engine(folder, batch_size=4, cache=cache)
    first, first_nll = engine.answer(requests), engine.gold_nll(requests, ["yes"] * 9)
    again = make_engine(folder, cache=cache)
    again._local.model.register_forward_pre_hook(lambda *_: pytest.fail("nothing is left to compute"))
    seen: list[tuple[int, int]] = []
    second = again.answer(requests, on_progress=lambda done, cached: seen.append((done, cached)))
    assert second == [answer._replace(is_cached=True) for answer in first]
    assert again.gold_nll(requests, ["yes"] * 9) == first_nll
    assert seen == [(9, 9)]


def test_progress_counts_batches_and_what_came_from_the_cache(folder: Path, tmp_path: Path):
    engine = make_engine(folder, batch_size=4, cache=AnswerCache(tmp_path))
    requests = make_requests(10)
    engine.answer(requests[:2])
    seen: list[tuple[int, int]] = []
    engine.answer(requests, on_progress=lambda done, cached: seen.append((done, cached)))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((2, 2), (10, 2))


def test_another_precision_is_another_identity(folder: Path):
    identities = {
        Engine(load(folder, precision=precision, device="cpu"), batch_size=1, cache=None).identity
        for precision in ("float32", "bfloat16")
    }
    assert len(identities) == 2


def test_code_libraries_and_device_are_part_of_the_identity(folder: Path):
    local = load(folder, precision="float32", device="cpu")
    here = Engine(local, batch_size=1, cache=None).identity
    assert engine_digest() in here
    elsewhere = local._replace(device="cuda")
    assert Engine(elsewhere, batch_size=1, cache=None).identity != here


def test_running_out_of_memory_halves_the_batch_and_goes_on(folder: Path, reference: LocalModel):
    engine = make_engine(folder, batch_size=16)
    tried: list[int] = []

    def at_most_three_rows(_: object, args: object, kwargs: dict[str, Any]) -> None:
        tried.append(kwargs["input_ids"].shape[0])
        if tried[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    engine._local.model.register_forward_pre_hook(at_most_three_rows, with_kwargs=True)
    requests = make_requests(16)
    assert [a.text for a in engine.answer(requests)] == [generate_alone(reference, request) for request in requests]
    refused = [rows for rows in tried if rows > 3]
    assert len(refused) == 3, "16, 8 and 4 rows are tried once each"
    assert refused == sorted(refused, reverse=True)


def test_a_prompt_that_never_fits_is_an_infrastructure_error(engine: Engine):
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: ...")

    engine._local.model.register_forward_pre_hook(full)
    [answer] = engine.answer(make_requests(1))
    assert answer.state == "infra_error"
    assert answer.error.startswith("out of memory with a single prompt")


def test_another_runtime_error_is_a_bug_and_not_hidden(engine: Engine):
    def broken(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    engine._local.model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine.answer(make_requests(2))


def test_a_timed_answer_is_the_batched_one_with_its_times(engine: Engine):
    requests = make_requests(6)
    batched = engine.answer(requests)
    for request, expected in zip(requests, batched, strict=True):
        start = time.perf_counter()
        answer = engine.time_one(request)
        wall_ms = (time.perf_counter() - start) * 1000
        assert answer._replace(latency_ms=None, ttft_ms=None) == expected
        assert answer.latency_ms is not None
        assert answer.ttft_ms is not None
        assert 0 < answer.ttft_ms < answer.latency_ms < wall_ms


def test_a_timed_answer_never_comes_from_the_cache(folder: Path, tmp_path: Path):
    engine = make_engine(folder, cache=AnswerCache(tmp_path))
    [request] = make_requests(1)
    engine.answer([request])
    answer = engine.time_one(request)
    assert not answer.is_cached
    assert answer.completion_tokens > 0


WINDOW = {"sliding_window": 9, "max_window_layers": 1, "use_sliding_window": True}


@pytest.mark.parametrize("family", ["Mistral", "Qwen2", "Gemma2"])
def test_sliding_windows_and_capped_scores_are_honoured(folder: Path, tmp_path: Path, family: str):
    import transformers

    base = load(folder, precision="float32", device="cpu")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(base.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=base.tokenizer.eos_token_id,
        attn_implementation="eager",
        **({"sliding_window": 9} if family != "Qwen2" else WINDOW),
    )
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.4)
    base.tokenizer.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.json").write_text((folder / "model.json").read_text())
    alone = LocalModel(model, base.tokenizer, "", "float32", "cpu")
    requests = make_requests(10)
    answers = make_engine(tmp_path, batch_size=4).answer(requests)
    assert [answer.text for answer in answers] == [generate_alone(alone, request) for request in requests]


def test_an_architecture_without_plain_attention_is_refused(reference: LocalModel):
    import transformers

    config = transformers.MambaConfig(vocab_size=600, hidden_size=32, num_hidden_layers=1, state_size=4)
    local = reference._replace(model=transformers.MambaForCausalLM(config))
    with pytest.raises(ConfigError, match="cannot run this model"):
        Engine(local, batch_size=1, cache=None)


RUN = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_engine import make_engine, make_requests
from pipelines.llm.answers import AnswerCache
engine = make_engine(Path(sys.argv[1]), batch_size=3, cache=AnswerCache(Path(sys.argv[2])))
print("ready", flush=True)
answers = engine.answer(make_requests(45, max_tokens=40, temperature=0.7))
values = engine.gold_nll(make_requests(45), ["yes, it is"] * 45)
Path(sys.argv[3]).write_text(json.dumps([[answer.text for answer in answers], values]))
"""


def start_run(folder: Path, cache: Path, result: Path) -> subprocess.Popen[str]:
    """Start a run and wait until its model is loaded."""
    arguments = [sys.executable, "-c", RUN, str(folder), str(cache), str(result), str(Path(__file__).parent)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_answers(folder: Path, tmp_path: Path):
    undisturbed = tmp_path / "undisturbed.json"
    process = start_run(folder, tmp_path / "cache-0", undisturbed)
    start = time.perf_counter()
    assert process.wait() == 0
    seconds = time.perf_counter() - start
    result, cache = tmp_path / "result.json", tmp_path / "cache-1"
    moments = random.Random(11)
    stored = 0
    for _ in range(3):
        process = start_run(folder, cache, result)
        time.sleep(moments.uniform(0, seconds / 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = len(list(cache.rglob("*.json")))
        assert now >= stored, "a kill must not lose what was stored"
        stored = now
    assert start_run(folder, cache, result).wait() == 0
    assert json.loads(result.read_text()) == json.loads(undisturbed.read_text())


def test_a_prompt_timed_again_and_again_is_read_each_time(engine: Engine):
    one, other = make_requests(2)
    n_read: list[int] = []

    def count(_: object, args: object, kwargs: dict[str, Any]) -> None:
        n_read.append(kwargs["input_ids"].shape[1])

    engine._local.model.register_forward_pre_hook(count, with_kwargs=True)

    def read_for(request: Request) -> int:
        n_read.clear()
        engine.time_one(request)
        return n_read[0]

    alone = read_for(one)
    assert alone == len(chat_ids(engine._local.tokenizer, one.messages))
    assert [read_for(one) for _ in range(2)] == [alone, alone]
    after_other = (read_for(other), read_for(one))[1]
    assert 1 < after_other < alone, "the system message is shared with the other prompt, and no more than it"
    assert [read_for(one) for _ in range(2)] == [after_other, after_other]
