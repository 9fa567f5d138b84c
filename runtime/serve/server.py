"""An OpenAI-style HTTP server over one trained run.

`POST /v1/completions` (whole or as server-sent events), `GET /v1/models`, `GET /health`. Requests take turns, a
piece of text each, so that every step has all cores. Errors are in OpenAI's shape.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from hashing.base.json_object import INT64_MAX
from hashing.text.text_file import SURROGATE
from runtime.serve.generator import Generator
from runtime.serve.sampler import Sampling

MAX_CONTEXT = 4096  # tokens of prompt and completion together

TokenId = Annotated[int, Field(ge=0, strict=True)]


class CompletionRequest(BaseModel):
    """The part of OpenAI's completion request that is served, and two of vLLM's; anything else is refused by name."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: str | list[TokenId] | list[str] | list[list[TokenId]] = ""
    max_tokens: int = Field(16, ge=0, le=MAX_CONTEXT)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=1)
    stream: bool = False
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, le=INT64_MAX)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)  # this and min_p as vLLM names them
    min_p: float = Field(0.0, ge=0, le=1)
    user: str | None = None

    def prompts(self) -> Sequence[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.prompt if not isinstance(item, int)]

    def sampling(self) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        stops = tuple(s for s in stop if s)
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.seed, stops, self.repetition_penalty, self.min_p)


class RequestError(Exception):
    def __init__(self, message: str, param: str | None, code: str, status: int = 400) -> None:
        super().__init__(message)
        self.body = error_body(message, param, code)
        self.status = status


def error_body(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


class Completions:
    """Answers completion requests with one generator."""

    def __init__(self, generator: Generator, name: str) -> None:
        self.name = name
        self._generator = generator
        self._turn = threading.Lock()

    def check(self, request: CompletionRequest) -> list[list[int]]:
        """The request's prompts as token ids. Raises RequestError for what cannot be served."""
        if request.model != self.name:
            raise RequestError(
                f"the model {request.model!r} is not served here; {self.name!r} is", "model", "model_not_found", 404
            )
        if not (prompts := request.prompts()):
            raise RequestError("prompt is an empty list; expected at least one prompt", "prompt", "invalid_value")
        return [self._prompt_ids(prompt, request.max_tokens) for prompt in prompts]

    def _prompt_ids(self, prompt: str | list[int], max_tokens: int) -> list[int]:
        if isinstance(prompt, str) and SURROGATE.search(prompt):
            raise RequestError("prompt holds half of a surrogate pair, which is no text", "prompt", "invalid_value")
        ids = self._generator.encode(prompt) if isinstance(prompt, str) else prompt or self._generator.encode("")
        if (largest := max(ids)) >= (size := self._generator.model.config.vocab_size):
            raise RequestError(f"token id {largest} is outside the vocabulary of {size} tokens", "prompt", "invalid_value")
        if len(ids) + max_tokens > MAX_CONTEXT:
            found = f"{len(ids)} in the prompt and {max_tokens} in the completion"
            raise RequestError(f"at most {MAX_CONTEXT} tokens are served; found {found}", "prompt", "context_length_exceeded")
        return ids

    def whole(self, request: CompletionRequest, prompts: list[list[int]]) -> dict[str, Any]:
        choices, completion = [], 0
        for index, prompt in enumerate(prompts):
            text = ""
            used = 0
            for piece, tokens in self._text(prompt, request.sampling()):
                text += piece
                used += tokens
            completion += used
            choices.append(self._choice(index, text, "length" if used == request.max_tokens else "stop"))
        asked = sum(map(len, prompts))
        usage = {"prompt_tokens": asked, "completion_tokens": completion, "total_tokens": asked + completion}
        return {**self._header(), "choices": choices, "usage": usage}

    def stream(self, request: CompletionRequest, prompts: list[list[int]]) -> Iterator[str]:
        header = self._header()
        for index, prompt in enumerate(prompts):
            used = 0
            for piece, tokens in self._text(prompt, request.sampling()):
                used += tokens
                yield self._event({**header, "choices": [self._choice(index, piece, None)]})
            reason = "length" if used == request.max_tokens else "stop"
            yield self._event({**header, "choices": [self._choice(index, "", reason)]})
        yield "data: [DONE]\n\n"

    def _text(self, prompt: list[int], sampling: Sampling) -> Iterator[tuple[str, int]]:
        """Takes its turn for each piece, never between two: a client that leaves must not leave with the lock."""
        pieces = self._generator.text(prompt, sampling)
        while True:
            with self._turn:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _header(self) -> dict[str, Any]:
        return {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()), "model": self.name}

    @staticmethod
    def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    @staticmethod
    def _event(document: dict[str, Any]) -> str:
        return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def build_app(generator: Generator, name: str) -> FastAPI:
    app = FastAPI(title="engram", openapi_url=None)
    completions = Completions(generator, name)
    started = int(time.time())

    @app.post("/v1/completions", response_model=None)
    def complete(request: CompletionRequest) -> StreamingResponse | dict[str, Any]:
        prompts = completions.check(request)
        if request.stream:
            return StreamingResponse(completions.stream(request, prompts), media_type="text/event-stream")
        return completions.whole(request, prompts)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": started, "owned_by": "engram"}]}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(RequestError)
    def refused(_: Request, e: RequestError) -> JSONResponse:
        return JSONResponse(e.body, e.status)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str)) or None
        return JSONResponse(error_body(f"{where or 'the body'}: {first['msg']}", where, "invalid_value"), 400)

    @app.exception_handler(HTTPException)
    def unknown(request: Request, e: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(f"{request.method} {request.url.path}: {e.detail}"), e.status_code)

    return app
