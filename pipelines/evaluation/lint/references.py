"""What `params.yaml` names must be there and fit: data sets, prompts, models, metrics, judges, labels."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.core.declared import nearest
from pipelines.core.params import EndpointModel, Params, RegisteredModel, Suite
from pipelines.core.source import Key
from pipelines.evaluation.catalogue import LATENCY_METRICS, LATENCY_SUITE, METRICS, ROW_METRICS, unmet
from pipelines.evaluation.lint.project import File, Finding, Project, exists

CANDIDATE = "candidate"
JUDGE_PROMPTS = "prompts/judges/"  # on which every evaluation stage depends
JUDGE_VARIABLES = ("input", "output", "gold")
# Suites write into evaluation/<name>/, where these already stand.
TAKEN = (LATENCY_SUITE, "baseline")


def check_params(project: Project, params: File[Params]) -> Iterator[Finding]:
    """Find names in `params.yaml` that lead nowhere, or to something that does not fit."""
    model = params.model
    if CANDIDATE in model.models:
        yield params.error(("models", CANDIDATE), "'candidate' is the fine-tuned model's name; choose another")
    yield from _check_train(project, params)
    for name, suite in model.suites.items():
        yield from _check_suite(project, params, name, suite)
    if model.latency.suite not in model.suites:
        hint = nearest(model.latency.suite, list(model.suites))
        yield params.error(("latency", "suite"), f"unknown suite '{model.latency.suite}'{hint}")
    for name, dataset in model.datasets.items():
        asked = [suite.prompt for suite in model.suites.values() if suite.dataset == name]
        asked += [model.train.prompt] if model.train.dataset == name else []
        if not asked:
            yield params.warning(("datasets", name), "is used by no suite and no training")
        elif all(path in project.prompts for path in asked):
            used = {variable for path in asked for variable in project.prompts[path].model.variables()}
            for variable in dataset.inputs:
                if variable not in used:
                    hint = nearest(variable, sorted(used))
                    yield params.error(
                        ("datasets", name, "inputs", variable),
                        f"no prompt that reads this data set has {{{{{variable}}}}}{hint}; remove it or use it",
                    )
    yield from _check_validate(project, params)


def _check_train(project: Project, params: File[Params]) -> Iterator[Finding]:
    train, models = params.model.train, params.model.models
    if train.base not in models:
        yield params.error(("train", "base"), f"unknown model '{train.base}'{nearest(train.base, list(models))}")
    elif isinstance(models[train.base], EndpointModel):
        yield params.error(("train", "base"), f"'{train.base}' is an endpoint; training needs weights")
    yield from _check_rendering(project, params, ("train",), train.dataset, train.prompt)


def _check_rendering(
    project: Project, params: File[Params], key: tuple[Key, ...], dataset: str, prompt: str
) -> Iterator[Finding]:
    """Check that a data set and a prompt exist, and that the one fills every variable of the other."""
    datasets = params.model.datasets
    if dataset not in datasets:
        yield params.error((*key, "dataset"), f"unknown data set '{dataset}'{nearest(dataset, list(datasets))}")
    yield from _check_prompt(project, params, (*key, "prompt"), prompt)
    if dataset in datasets and prompt in project.prompts:
        filled = datasets[dataset].inputs
        for variable in project.prompts[prompt].model.variables():
            if variable not in filled:
                yield params.error(
                    (*key, "prompt"),
                    f"{prompt} has {{{{{variable}}}}}, which datasets.{dataset}.inputs does not fill"
                    f"{nearest(variable, list(filled))}",
                )


def _check_prompt(project: Project, params: File[Params], key: tuple[Key, ...], path: str) -> Iterator[Finding]:
    if path not in project.prompts and path not in project.broken_prompts:
        yield params.error(key, f"no prompt file '{path}'{nearest(path, list(project.prompts))}")


def _check_suite(project: Project, params: File[Params], name: str, suite: Suite) -> Iterator[Finding]:
    key: tuple[Key, ...] = ("suites", name)
    models, train = params.model.models, params.model.train
    if name in TAKEN:
        yield params.error(key, f"the name '{name}' is taken by evaluation/{name}/; choose another")
    yield from _check_rendering(project, params, key, suite.dataset, suite.prompt)
    if suite.model != CANDIDATE and suite.model not in models:
        hint = nearest(suite.model, [*models, CANDIDATE])
        yield params.error((*key, "model"), f"unknown model '{suite.model}'{hint}")
    if suite.model == CANDIDATE and suite.prompt != train.prompt:
        text = f"the candidate is trained with {train.prompt}, here it is asked with {suite.prompt}"
        # Another task than the trained one is a fair question: does fine-tuning hurt it?
        is_same_task = suite.dataset == train.dataset
        yield (params.error if is_same_task else params.warning)((*key, "prompt"), text)
    yield from _check_metrics(project, params, name, suite)
    for judge_name, judge in suite.judges.items():
        place = (*key, "judges", judge_name)
        if judge.model != CANDIDATE and judge.model not in models:
            yield params.error((*place, "model"), f"unknown model '{judge.model}'{nearest(judge.model, list(models))}")
        if judge.model != suite.model:  # on whose folder the stage depends
            yield from _check_unnoticed(params, name, (*place, "model"), judge.model)
        yield from _check_prompt(project, params, (*place, "prompt"), judge.prompt)
        if judge.prompt in project.prompts and suite.dataset in params.model.datasets:
            filled = [*JUDGE_VARIABLES, *params.model.datasets[suite.dataset].inputs]
            for variable in project.prompts[judge.prompt].model.variables():
                if variable not in filled:
                    text = (
                        f"{judge.prompt} has {{{{{variable}}}}}, which a judge is not told{nearest(variable, filled)}"
                    )
                    yield params.error((*place, "prompt"), text)
        for field, path in (("prompt", judge.prompt), ("calibration", judge.calibration)):
            if path is not None and not path.startswith(JUDGE_PROMPTS):
                yield params.error((*place, field), f"must lie in {JUDGE_PROMPTS}, where a change is noticed")
        if judge.calibration is not None and not exists(project.root, judge.calibration):
            yield params.error((*place, "calibration"), f"no such file: {judge.calibration}")


def _check_unnoticed(params: File[Params], name: str, place: tuple[Key, ...], model: str) -> Iterator[Finding]:
    """Warn where a judge's model can change although nothing that is declared does: no stage depends on its folder."""
    if model == CANDIDATE or isinstance(params.model.models.get(model), RegisteredModel):
        what = "the candidate" if model == CANDIDATE else "a registered model, whose alias can move"
        yield params.warning(
            place,
            f"is {what}: the suite does not notice when it changes; after that run "
            f"`dvc repro --force --single-item evaluate@{name}`",
        )


def _check_metrics(project: Project, params: File[Params], name: str, suite: Suite) -> Iterator[Finding]:
    key: tuple[Key, ...] = ("suites", name)
    dataset, prompt = params.model.datasets.get(suite.dataset), project.prompts.get(suite.prompt)
    is_local = not isinstance(params.model.models.get(suite.model), EndpointModel)
    for index, metric in enumerate(suite.metrics):
        place = (*key, "metrics", index)
        if metric in suite.metrics[:index]:
            yield params.error(place, f"metric '{metric}' is listed twice")
        elif metric in LATENCY_METRICS:
            yield params.error(place, f"'{metric}' comes from the suite `{LATENCY_SUITE}`; gate it there")
        elif metric not in METRICS:
            yield params.error(place, f"unknown metric '{metric}'{nearest(metric, list(ROW_METRICS))}")
        elif dataset is not None and prompt is not None:
            has_schema = prompt.model.json_schema is not None
            if lack := unmet(METRICS[metric], dataset, has_schema=has_schema, is_local=is_local):
                yield params.error(place, f"{lack}; drop the metric or add it")
    for kind, names in (("judges", suite.judges), ("classifiers", suite.classifiers)):
        for own in names:
            if own in METRICS or (kind == "classifiers" and own in suite.judges):
                yield params.error((*key, kind, own), f"'{own}' is the name of another metric; choose another")


def _check_validate(project: Project, params: File[Params]) -> Iterator[Finding]:
    for name in sorted(params.model.datasets.keys() - params.model.validate_.keys()):
        yield params.error(("validate",), f"data set '{name}' has no section here; at least its prompt is needed")
    for name, rules in params.model.validate_.items():
        key: tuple[Key, ...] = ("validate", name)
        if name not in params.model.datasets:
            hint = nearest(name, list(params.model.datasets))
            yield params.error(key, f"unknown data set '{name}'{hint}")
        path = rules.prompt
        yield from _check_prompt(project, params, (*key, "prompt"), path)
        schema = project.prompts[path].model.schema_of_answer() if path in project.prompts else None
        if schema is None:
            if rules.labels and path in project.prompts:
                yield params.error((*key, "labels"), f"{path} has no jsonSchema, so answers have no labels")
            continue
        properties = schema.get("properties", {})
        for label, allowed in rules.labels.items():
            field = properties.get(label)
            field = field.get("items", field) if isinstance(field, dict) else field
            values = field.get("enum") if isinstance(field, dict) else None
            if label not in properties:
                hint = nearest(label, list(properties))
                yield params.error((*key, "labels", label), f"the jsonSchema of {path} has no such key{hint}")
            elif isinstance(values, list) and set(map(str, values)) != set(allowed):
                differing = sorted(set(map(str, values)) ^ set(allowed))
                where = "only here" if differing[0] in allowed else f"only in {path}"
                yield params.error(
                    (*key, "labels", label), f"differs from the enum in {path}: '{differing[0]}' is {where}"
                )
