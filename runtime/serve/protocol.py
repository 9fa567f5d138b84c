"""The requests that are served, as OpenAI's API writes them, with the names that vLLM gave to what it adds.

A field that is null is as one that is left out. What is not served is refused by its name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hashing.base.json_object import INT64_MAX
from runtime.serve.sampler import LONGEST_STOP, MOST_STOPS, Sampling

MOST_PROMPTS = 64
MOST_MESSAGES = 1024
MOST_CHOICES = 16
MOST_LIKELIEST = 20
INT64_MIN = -INT64_MAX - 1

TokenId = Annotated[int, Field(ge=0, le=INT64_MAX, strict=True)]
Stop = Annotated[str, Field(max_length=LONGEST_STOP)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class SampledRequest(BaseModel):
    """What both kinds of request say of how text is drawn."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=INT64_MAX)  # -1, as vLLM has it, is 0
    min_p: float = Field(0.0, ge=0, le=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] = []
    seed: int | None = Field(None, ge=INT64_MIN, le=INT64_MAX)
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] = {}
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: float = Field(1.0, gt=0, le=1000)
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class CompletionRequest(SampledRequest):
    prompt: str | list[TokenId] | list[str] | list[list[TokenId]] = ""
    max_tokens: int = Field(16, ge=0, le=INT64_MAX)
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MOST_LIKELIEST)
    suffix: None = None  # text after the completion, which these models do not know of

    @model_validator(mode="after")
    def _is_consistent(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of is {self.best_of}, expected n ({self.n}) or more")
        if self.best_of is not None and self.best_of > self.n and self.stream:
            raise ValueError("best_of is above n, which cannot be streamed")
        if len(self.prompts()) > MOST_PROMPTS:
            raise ValueError(f"{len(self.prompts())} prompts, expected at most {MOST_PROMPTS}")
        return self

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def tries(self) -> int:
        """How many texts each prompt is continued to."""
        return self.best_of or self.n

    def sampling(self, number: int) -> Sampling:
        """Of one of the texts; they draw from seeds that follow one another."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        bias = tuple((int(token), value) for token, value in self.logit_bias.items())
        seed = None if self.seed is None else (self.seed + number) % (INT64_MAX + 1)
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
            stop=tuple(text for text in stop if text),
            repetition_penalty=self.repetition_penalty,
            min_p=self.min_p,
            top_k=max(0, self.top_k),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=bias,
        )


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class ChatRequest(SampledRequest):
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=INT64_MAX)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT64_MAX)  # the newer name of the same
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_LIKELIEST)

    def completion(self, prompt: list[int], most_tokens: int) -> CompletionRequest:
        """The same, for a prompt that the messages were made into; without a bound the text may have `most_tokens`."""
        shared = {name: getattr(self, name) for name in SampledRequest.model_fields}
        asked = self.max_completion_tokens or self.max_tokens or max(1, most_tokens)
        likeliest = self.top_logprobs if self.logprobs else None
        return CompletionRequest.model_validate(shared | {"prompt": prompt, "max_tokens": asked, "logprobs": likeliest})


class RequestError(Exception):
    """Answered with its status and, in OpenAI's shape, with what is wrong."""

    def __init__(self, message: str, param: str | None, code: str, status: int = 400) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body, self.status = error_body(message, param, code, kind), status


def error_body(
    message: str, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error"
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
