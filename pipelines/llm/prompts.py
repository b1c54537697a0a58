"""Prompt files and the one renderer that training, evaluation and serving share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from pipelines.core.declared import Declared, Misplaced, load, nearest
from pipelines.core.errors import ConfigError
from pipelines.llm.answer_schema import parse_schema

VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
# What looks like a variable and is none: {{ first name }}, {{1}}, {{name}. JSON in a prompt ({"a": {"b": 1}}) does not.
LOOKALIKE = re.compile(r"\{\{(?!\{)[^{}\n\"':]{0,80}\}?")
# Tokens with which chat templates of the common model families open, close or structure messages.
CONTROL = re.compile(
    r"<[|\uff5c](?:[^\s<>\[\]]{0,60}?[|\uff5c]>)?"  # ChatML, Llama 3, Phi, harmony; DeepSeek's bar is full-width
    r"|</?(?:s|think|tool_call|tool_response|mask)>|<</?SYS>>"
    r"|<(?:bos|eos|pad|unk|sop|eop|(?:start|end)_of_(?:turn|image))>"
    r"|<(?:repo_?name|filename|file_sep|gh_stars|empty_output|(?:issue|jupyter)_[a-z]{1,12})>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|IMG|g?MASK|CLS|SEP)\]"
)


class Message(NamedTuple):
    """One chat message, as OpenAI-compatible endpoints take it."""

    role: str
    content: str


def _has_only_variables(text: str) -> str:
    if found := LOOKALIKE.search(VARIABLE.sub("", text)):
        raise ValueError(f"'{found.group()}' is no variable; write {{{{name}}}} with letters, digits and '_'")
    return text


class PromptMessage(Declared):
    """A message with `{{variables}}`."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1), AfterValidator(_has_only_variables)]


class ModelParameters(Declared):
    """Decoding parameters."""

    max_tokens: Annotated[int, Field(ge=1, alias="maxTokens")] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, alias="topP")] = 1.0


class StringCheck(Declared):
    """A plain check of the answer's text."""

    equals: str | None = None
    contains: str | None = None
    startsWith: str | None = None
    endsWith: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> StringCheck:
        if sum(value is not None for value in (self.equals, self.contains, self.startsWith, self.endsWith)) != 1:
            raise ValueError("exactly one of 'equals', 'contains', 'startsWith' or 'endsWith' is needed")
        return self


class Choice(Declared):
    """A grade and its score, 0 to 1."""

    choice: str
    score: Annotated[float, Field(ge=0, le=1)]


class LlmCheck(Declared):
    """A grade given by a model."""

    modelId: str
    prompt: str
    systemPrompt: str = ""
    choices: tuple[Choice, ...] = Field(min_length=2)


class Evaluator(Declared):
    """One evaluator: `string` or `llm`."""

    name: str
    string: StringCheck | None = None
    llm: LlmCheck | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Evaluator:
        if (self.string is None) == (self.llm is None):
            raise ValueError("exactly one of 'string' or 'llm' is needed")
        return self


class Gatehouse(Declared):
    """What Gatehouse adds to the `.prompt.yml` format, under `x-gatehouse`."""

    version: Annotated[int, Field(ge=1)]
    owners: tuple[str, ...] = ()
    inputs: dict[str, Literal["string", "number", "boolean"]]
    suite: str | None = None
    tags: tuple[str, ...] = ()


def _fits_schema(text: str) -> str:
    parse_schema(text)
    return text


class Prompt(Declared):
    """A `.prompt.yml` file."""

    name: str
    description: str = ""
    model: str | None = None
    model_parameters: ModelParameters = Field(default=ModelParameters(), alias="modelParameters")
    response_format: Literal["text", "json_object", "json_schema"] = Field(default="text", alias="responseFormat")
    json_schema: Annotated[str, AfterValidator(_fits_schema)] | None = Field(
        default=None, alias="jsonSchema", description="JSON text with `name` and `schema`."
    )
    messages: tuple[PromptMessage, ...] = Field(min_length=1)
    test_data: tuple[dict[str, Any], ...] = Field(default=(), alias="testData")
    evaluators: tuple[Evaluator, ...] = ()
    gatehouse: Gatehouse = Field(alias="x-gatehouse")

    @model_validator(mode="after")
    def _consistent(self) -> Prompt:
        declared = self.gatehouse.inputs
        for index, message in enumerate(self.messages):
            for name in VARIABLE.findall(message.content):
                if name not in declared:
                    hint = nearest(name, list(declared))
                    raise Misplaced(
                        f"uses {{{{{name}}}}}, which x-gatehouse.inputs does not declare{hint}", "messages", index
                    )
        for name in declared:
            if name not in self.variables():
                raise Misplaced(f"declares '{name}', which no message uses", "x-gatehouse", "inputs", name)
        if (self.response_format == "json_schema") != (self.json_schema is not None):
            raise ValueError("responseFormat json_schema and jsonSchema go together")
        if self.messages[-1].role == "assistant":
            raise Misplaced("is the assistant's; nothing is left to answer", "messages", len(self.messages) - 1)
        return self

    def variables(self) -> list[str]:
        """Return the names of the variables in the order in which they are used."""
        return list(dict.fromkeys(name for message in self.messages for name in VARIABLE.findall(message.content)))

    def schema_of_answer(self) -> dict[str, Any] | None:
        """Return the JSON Schema that an answer must satisfy, or None."""
        return None if self.json_schema is None else parse_schema(self.json_schema)

    def wants_json(self) -> bool:
        """Tell whether an answer is complete as soon as its JSON value closes."""
        return self.response_format != "text"


def load_prompt(path: Path) -> Prompt:
    """Load a `.prompt.yml` file.

    Raises:
        ConfigError: The file is missing or wrong; the message names line and key.
    """
    return load(path, Prompt)


def render(prompt: Prompt, inputs: dict[str, str]) -> list[Message]:
    """Fill in the variables; what is filled in can neither add a variable nor close a message.

    Args:
        prompt: The prompt.
        inputs: Value of every variable; others are ignored.

    Returns:
        The chat messages. Control tokens of common chat templates that `inputs` bring in, whole or as a part, are
        broken up by a space, so that a customer's text stays text in every engine.

    Raises:
        ConfigError: A variable has no value.
    """
    return [Message(message.role, _fill(prompt.name, message.content, inputs)) for message in prompt.messages]


def _fill(name: str, content: str, inputs: dict[str, str]) -> str:
    text, filled = "", []
    for index, piece in enumerate(VARIABLE.split(content)):  # text, name, text, name, ..., text
        if index % 2 == 0:
            text += piece
        elif piece in inputs:
            filled.append((len(text), len(text) + len(str(inputs[piece]))))
            text += str(inputs[piece])
        else:
            raise ConfigError(f"prompt '{name}': no value for {{{{{piece}}}}}; map a column to it in params.yaml")

    def split(token: re.Match[str]) -> str:
        # The author's own tokens stay; one that a value completes with its neighbours' text does not.
        is_brought_in = any(start < token.end() and token.start() < end for start, end in filled)
        return f"{token.group()[0]} {token.group()[1:]}" if is_brought_in else token.group()

    return CONTROL.sub(split, text)


def schema() -> dict[str, Any]:
    """Return the JSON Schema that editors use."""
    return Prompt.model_json_schema(by_alias=True)
