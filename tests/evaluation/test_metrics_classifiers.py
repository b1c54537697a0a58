"""Classifiers: a real two-label model made here, and every way in which its files can be refused."""

import json
import math
import pickle
import shutil

import pytest

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import sha256
from pipelines.core.params import Classifier
from pipelines.evaluation.classifiers import classify
from pipelines.llm.answers import AnswerCache

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "are", "kind", "awful", "thanks", "go", "away"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random two-layer BERT with the labels `kind` and `toxic`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        id2label={0: "kind", 1: "toxic"}, label2id={"kind": 0, "toxic": 1}, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def declared(folder, **changes):
    files = {path.name: sha256(path) for path in (*folder.glob("*.safetensors"), folder / "config.json")}
    return Classifier(**{"id": str(folder), "sha256": files, "label": "toxic", **changes})


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def by_hand(folder, *texts):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits[0]
    kind, toxic = (math.exp(float(logit)) for logit in logits)
    return toxic / (kind + toxic)


def test_the_metric_is_the_softmax_probability_of_the_label(model):
    outputs = ["you are kind", "awful", "go away you are awful", "thanks", "you are awful"]
    found = classify(declared(model), [""] * 5, outputs)
    assert found == pytest.approx([by_hand(model, output) for output in outputs], abs=1e-5)
    assert len({round(value, 4) for value in found}) == 5
    other = classify(declared(model, label="kind"), [""] * 5, outputs)
    assert [one + two for one, two in zip(found, other, strict=True)] == pytest.approx([1.0] * 5)


def test_a_pair_is_classified_as_a_pair(model):
    assert classify(declared(model, pair=True), ["you are"], ["kind"]) == pytest.approx(
        [by_hand(model, "you are", "kind")], abs=1e-5
    )


def test_an_answer_longer_than_the_model_reads_is_cut_and_said(model, capsys):
    assert 0 < classify(declared(model), ["", ""], ["awful " * 2000, "awful"])[0] < 1
    assert "1 of 2 texts are longer than 512 tokens; it reads their beginning only" in capsys.readouterr().err
    classify(declared(model), [""], ["awful"])
    assert "longer than" not in capsys.readouterr().err


def test_swapped_labels_in_the_configuration_are_refused(copy):
    classifier = declared(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"label2id": {"kind": 1, "toxic": 0}}))
    with pytest.raises(ConfigError, match=r"config\.json: SHA-256 is [0-9a-f]{64}, declared is"):
        classify(classifier, [""], ["x"])


def test_a_folder_must_declare_its_configuration_and_weights(copy):
    files = declared(copy).sha256
    with pytest.raises(ConfigError, match=r"declare it as well \(config\.json: [0-9a-f]{64}\)"):
        classify(declared(copy, sha256={"model.safetensors": files["model.safetensors"]}), [""], ["x"])
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="declares no weights"):
        classify(declared(copy, sha256={"config.json": files["config.json"]}), [""], ["x"])


def test_what_is_cached_needs_no_model(copy, tmp_path):
    cache, classifier = AnswerCache(tmp_path / "cache"), declared(copy)
    first = classify(classifier, [""], ["awful"], cache)
    shutil.rmtree(copy)
    assert classify(classifier, ["another question"], ["awful"], cache) == first


def test_weights_with_another_hash_are_refused(copy):
    classifier = declared(copy)
    with (copy / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ConfigError, match=r"model\.safetensors: SHA-256 is [0-9a-f]{64}, declared is"):
        classify(classifier, [""], ["x"])


def test_a_pickle_is_refused_whatever_it_is_called(copy):
    path = copy / "model.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(ConfigError, match="not safetensors; other formats can run code"):
        classify(declared(copy), [""], ["x"])


def test_a_declared_file_that_is_not_there_is_named(copy):
    classifier = declared(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no file 'model\.safetensors'"):
        classify(classifier, [""], ["x"])


def test_weights_beside_the_declared_ones_are_refused(copy):
    classifier = declared(copy)
    shutil.copy(copy / "model.safetensors", copy / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other\.safetensors: its SHA-256 is not declared"):
        classify(classifier, [""], ["x"])


def test_a_model_that_brings_code_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="asks for code of its own"):
        classify(declared(copy), [""], ["x"])


def test_weights_that_compute_no_number_are_one_line(copy):
    from safetensors.torch import load_file, save_file

    (path,) = copy.glob("*.safetensors")
    weights = load_file(path)
    weights["classifier.bias"] = weights["classifier.bias"] * math.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="its weights compute no number for 'toxic'"):
        classify(declared(copy), [""], ["you are kind"])


def test_an_unknown_label_names_the_nearest(model):
    with pytest.raises(ConfigError, match=r"unknown label 'toxik' \(did you mean 'toxic'\?\)"):
        classify(declared(model, label="toxik"), [""], ["x"])


def test_a_folder_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="no such folder; for a hub id give `revision`"):
        classify(Classifier(id=str(tmp_path / "none"), sha256={"m": "0" * 64}, label="x"), [""], ["x"])


def test_a_hub_that_cannot_be_reached_is_an_outside_failure():
    classifier = Classifier(
        id="acme/never-published", revision="0" * 40, sha256={"model.safetensors": "0" * 64}, label="toxic"
    )
    with pytest.raises(ServiceError, match="acme/never-published: cannot be fetched from the hub") as caught:
        classify(classifier, [""], ["x"])
    assert "\n" not in str(caught.value)
