import json
from pathlib import Path

import pytest

from pipelines.evaluation.reporting.changes import compare, compare_keys, compare_models, compare_prompts
from pipelines.evaluation.reporting.data_changes import compare_data
from pipelines.evaluation.reporting.difference import Piece

ROWS = [
    {"message": "My doorbell is dead.", "answer": {"intent": "fault"}},
    {"message": "Where is my parcel? It was due on Monday.", "answer": {"intent": "delivery"}},
    {"message": "Please cancel my plan.", "answer": {"intent": "cancel"}},
]


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees: params, gates, one prompt, one data file."""
    for name in ("before", "after"):
        folder = tmp_path / name
        (folder / "prompts").mkdir(parents=True)
        (folder / "params.yaml").write_text(
            "train:\n  learning_rate: 0.002\ndatasets:\n  desk: {path: data/desk.jsonl, inputs: {message: message}}\n"
        )
        (folder / "gates.yaml").write_text("evaluation:\n  gates:\n    - name: form\n      required: true\n")
        (folder / "prompts" / "desk.prompt.yml").write_text(
            "name: desk\nmessages:\n  - {role: system, content: Be kind.}\n"
        )
        write_rows(folder / "data" / "desk.jsonl", ROWS)
    return tmp_path / "before", tmp_path / "after"


def test_equal_trees_have_no_changes(trees: tuple[Path, Path]) -> None:
    assert compare(*trees).is_nothing


def test_without_a_baseline_tree_nothing_is_known(tmp_path: Path) -> None:
    found = compare(tmp_path / "missing", tmp_path)
    assert not found.is_known
    assert not found.is_nothing


def test_a_changed_parameter_is_named_with_both_values(trees: tuple[Path, Path]) -> None:
    params = trees[1] / "params.yaml"
    params.write_text(params.read_text().replace("0.002", "0.001"))
    assert [str(change) for change in compare(*trees).parameters] == ["train.learning_rate 0.002 -> 0.001"]


def test_keys_that_came_or_went_are_not_set_on_the_other_side() -> None:
    found = compare_keys("params.yaml", {"train": {"epochs": 1}}, {"train": {"seed": 7}})
    assert [str(change) for change in found] == ["train.seed (not set) -> 7", "train.epochs 1 -> (not set)"]


def test_a_gate_that_moved_is_no_change_and_one_that_was_edited_is_named() -> None:
    before = {"gates": [{"name": "form", "floor": 0.9}, {"name": "safety", "ceiling": 0.1}]}
    after = {"gates": [{"name": "safety", "ceiling": 0.2}, {"name": "form", "floor": 0.9}]}
    assert [str(change) for change in compare_keys("gates.yaml", before, after)] == ["gates[safety].ceiling 0.1 -> 0.2"]


def test_a_prompt_is_compared_word_by_word_and_its_other_keys_by_key() -> None:
    before = {"messages": [{"role": "system", "content": "Be kind."}], "modelParameters": {"maxTokens": 40}}
    after = {"messages": [{"role": "system", "content": "Be very kind."}], "modelParameters": {"maxTokens": 48}}
    found = compare_prompts("prompts/desk.prompt.yml", before, after)
    assert found is not None
    assert found.texts[0].pieces == (Piece("same", "Be "), Piece("added", "very "), Piece("same", "kind."))
    assert [str(key) for key in found.keys] == ["modelParameters.maxTokens 40 -> 48"]


def test_new_and_deleted_prompts_are_told_apart(trees: tuple[Path, Path]) -> None:
    (trees[1] / "prompts" / "desk.prompt.yml").rename(trees[1] / "prompts" / "reply.prompt.yml")
    assert [(change.path, change.state) for change in compare(*trees).prompts] == [
        ("prompts/desk.prompt.yml", "removed"),
        ("prompts/reply.prompt.yml", "added"),
    ]


def test_rows_in_another_order_are_no_change(tmp_path: Path) -> None:
    before, after = write_rows(tmp_path / "a", ROWS), write_rows(tmp_path / "b", ROWS[::-1])
    assert compare_data("data", before, after, ("message",)) is None


def test_rows_are_added_removed_and_edited_by_content(tmp_path: Path) -> None:
    relabelled = {"message": ROWS[0]["message"], "answer": {"intent": "setup"}}
    reworded = {"message": "Where is my parcel? It was due on Friday.", "answer": {"intent": "delivery"}}
    new = {"message": "Love the speaker!", "answer": {"intent": "feedback"}}
    before, after = write_rows(tmp_path / "a", ROWS), write_rows(tmp_path / "b", [new, reworded, relabelled])
    found = compare_data("data", before, after, ("message",))
    assert found is not None
    assert [line for line, _ in found.added] == [1]
    assert [line for line, _ in found.removed] == [3]
    assert [(row.line, row.columns[0][0]) for row in found.edited] == [(2, "message"), (3, "answer")]
    assert Piece("added", "Friday") in found.edited[0].columns[0][1]


def test_a_second_copy_of_a_row_counts_as_added(tmp_path: Path) -> None:
    before, after = write_rows(tmp_path / "a", ROWS), write_rows(tmp_path / "b", [*ROWS, ROWS[0]])
    found = compare_data("data", before, after, ("message",))
    assert found is not None
    assert len(found.added) == 1
    assert not found.removed


def test_a_broken_baseline_file_is_named_and_hides_nothing_else(trees: tuple[Path, Path]) -> None:
    (trees[0] / "data" / "desk.jsonl").write_text('{"message": "cut')
    params = trees[1] / "params.yaml"
    params.write_text(params.read_text().replace("0.002", "0.001"))
    found = compare(*trees)
    assert len(found.parameters) == 1
    assert "desk.jsonl:1" in found.unreadable[0]


def test_a_declared_path_outside_the_tree_is_not_read(trees: tuple[Path, Path]) -> None:
    for folder in trees:
        params = folder / "params.yaml"
        params.write_text(params.read_text().replace("data/desk.jsonl", "../secret.jsonl"))
    write_rows(trees[0].parent / "secret.jsonl", ROWS)
    assert compare(*trees).data == ()


def test_a_model_with_another_digest_is_a_change_and_one_with_the_same_is_none() -> None:
    runs = [{"triage": {"model": {"name": "candidate", "digest": letter * 64}}} for letter in "ab"]
    assert compare_models(runs[0], runs[0]) == ()
    found = compare_models(*runs)
    assert (found[0].suite, found[0].after) == ("triage", "candidate bbbbbbbbbbbb")


def test_a_shift_of_the_labels_is_said_and_an_unshifted_file_too(tmp_path: Path) -> None:
    from pipelines.core.params import Dataset
    from pipelines.evaluation.reporting.data_changes import describe_shift

    def rows(n_faults: int) -> list[dict[str, object]]:
        labels = ["fault"] * n_faults + ["delivery"] * (300 - n_faults)
        return [{"message": f"message {at:03d}", "answer": {"intent": label}} for at, label in enumerate(labels)]

    dataset = Dataset(path="data.jsonl", inputs={"message": "message"}, answer="answer")
    before, after = write_rows(tmp_path / "before.jsonl", rows(100)), write_rows(tmp_path / "after.jsonl", rows(200))
    sentences = describe_shift(dataset, before, after)
    assert "shifted: answer.intent: delivery 67% -> 33%, fault 33% -> 67%" in sentences
    assert describe_shift(dataset, before, before) == ("none of 3 columns (lengths, labels, slices) shifted",)
    few = write_rows(tmp_path / "few.jsonl", rows(100)[:150])
    assert describe_shift(dataset, before, few) == (
        "too few rows to tell whether the data shifted (300 before, 150 now)",
    )
