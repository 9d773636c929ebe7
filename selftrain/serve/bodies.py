"""The bodies of requests and answers. Fields that clients send and this server does not know are ignored, as vLLM does."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PROMPT, TEXTS = "def double(n):\n", ["    return 2 * n\n", "    return n\n"]


def example(**fields: Any) -> ConfigDict:
    """Shows a body with these fields in /docs, where a caller can send it."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TextObject(Body):
    """A document as an object; its other fields are ignored."""

    text: str


Document = str | TextObject


def text_of(document: Document) -> str:
    """The text of a document."""
    return document if isinstance(document, str) else document.text


def texts_of(documents: Document | Sequence[Document]) -> list[str]:
    """The texts of one document or of several."""
    many = [documents] if isinstance(documents, str | TextObject) else documents
    return list(map(text_of, many))


class Common(Body):
    """Fields of several APIs.

    model                   any name: one reranker is served, whatever it is called
    language                (own) the programs' language, such as py; needed by runs of several languages with a chat model
    truncate_prompt_tokens  (vLLM) candidates are cut so that prompt and candidate have at most that many tokens; -1: the
                            reranker's longest input. Without it, a candidate that is too long is not scored and comes last
    truncation_side         (vLLM) which end of a candidate is cut off
    use_activation          (vLLM) true: scores between 0 and 1; false: the model's scores. None: the route's default
    """

    model: str | None = None
    language: str | None = None
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    truncation_side: Literal["left", "right"] | None = None
    use_activation: bool | None = None


class Rerank(Common):
    """Cohere's, Jina's and vLLM's request (`documents`), or that of Text Embeddings Inference (`texts`).

    query               the prompt
    documents, texts    the candidates: completions of the prompt
    top_n               how many are returned, the best first; None or 0: all
    return_documents    whether the answer has the candidates' texts; None: it has
    max_tokens_per_doc  (Cohere) longer candidates are cut to that many tokens
    truncate            (TEI) cut candidates to the reranker's longest input
    truncation_direction  (TEI) which end of a candidate is cut off
    raw_scores          (TEI) the model's scores instead of numbers between 0 and 1
    return_text         (TEI) whether the answer has the candidates' texts
    """

    model_config = example(query=PROMPT, documents=TEXTS)

    query: Document
    documents: list[Document] | None = None
    texts: list[str] | None = None
    top_n: int | None = Field(default=None, ge=0)
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("expected either documents or texts")
        return self

    @property
    def candidates(self) -> list[str]:
        """The texts to rank."""
        return self.texts if self.texts is not None else texts_of(self.documents or [])


class Score(Common):
    """vLLM's request for scores: one prompt and n candidates, or n prompts and n candidates, under one of four pairs of names."""

    model_config = example(text_1=PROMPT, text_2=TEXTS)

    queries: Document | list[Document] | None = None
    documents: Document | list[Document] | None = None
    items: Document | list[Document] | None = None
    text_1: Document | list[Document] | None = None
    text_2: Document | list[Document] | None = None
    data_1: Document | list[Document] | None = None
    data_2: Document | list[Document] | None = None

    @model_validator(mode="after")
    def _one_pair(self) -> Self:
        if len(self._pairs()) != 1:
            raise ValueError(
                "expected one pair of fields: queries and documents, queries and items, text_1 and text_2, or data_1 and data_2"
            )
        return self

    def _pairs(self) -> list[tuple[list[str], list[str]]]:
        named = (
            (self.queries, self.documents),
            (self.queries, self.items),
            (self.text_1, self.text_2),
            (self.data_1, self.data_2),
        )
        return [(texts_of(one), texts_of(two)) for one, two in named if one is not None and two is not None]

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The prompts and the candidates."""
        return self._pairs()[0]


class Message(Body):
    """A message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


class Classify(Common):
    """vLLM's request for classes: texts with the separator between prompt and completion, or one conversation of two messages."""

    model_config = example(
        messages=[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEXTS[0]}]
    )

    input: str | list[str] | None = None
    messages: Annotated[list[Message], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either input or messages")
        if self.messages and [message.role for message in self.messages] != ["user", "assistant"]:
            raise ValueError(
                "messages: expected one of the user, the prompt, and one of the assistant, the completion"
            )
        return self


class Reward(Body):
    """OpenRLHF's request to a remote reward model.

    query    prompts with their completions, decoded with special tokens
    prompts  the prompts; None: the tokenizer's separator ends the prompt in each query
    labels   ignored
    """

    model_config = example(query=[PROMPT + TEXTS[0]], prompts=[PROMPT])

    query: list[str]
    prompts: list[str] | None = None
    labels: list[Any] | None = None
    language: str | None = None


class Usage(BaseModel):
    """Tokens that the model has read, each prompt once for each of its candidates."""

    prompt_tokens: int
    total_tokens: int


class Ranked(BaseModel):
    """One candidate, by its place in the request."""

    index: int
    relevance_score: float
    document: TextObject | None = None


class Reranked(BaseModel):
    """Cohere's, Jina's and vLLM's answer. `meta`: Cohere's, with `warnings` about candidates that are empty or were cut."""

    id: str
    model: str
    usage: Usage
    meta: dict[str, Any]
    results: list[Ranked]


class Rank(BaseModel):
    """One candidate in the answer of Text Embeddings Inference."""

    index: int
    score: float
    text: str | None = None


class Scored(BaseModel):
    """vLLM's answer with scores or classes: `data` has a row {index, object, score} or {index, label, probs, num_classes} for each."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[dict[str, Any]]
    usage: Usage


class Rewarded(BaseModel):
    """OpenRLHF's answer. `rewards`: the model's scores; `scores`: between 0 and 1; `extra_logs`: empty."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]
