"""An OpenAI-style HTTP server over one model.

`POST /v1/completions` and, where the model has a chat template, `/v1/chat/completions` (whole or as server-sent events),
`GET /v1/models`; `GET /health`, whether the server answers, and
`GET /ready`, whether it should be asked; `GET /metrics`. Errors are in OpenAI's shape. A client that leaves is not computed for
any longer.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from anyio import CapacityLimiter, create_task_group, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from hashing.base.errors import EngramError, UsageError
from hashing.text.text_file import SURROGATE
from runtime.model.helper import HELPER
from runtime.placement.disk import DiskPlacement
from runtime.serve.api_key import ApiKey
from runtime.serve.body_limit import BodyLimit
from runtime.serve.choice import Choice
from runtime.serve.completion import Completion, Piece
from runtime.serve.form import CHAT, COMPLETION, Form
from runtime.serve.generator import Generator, NoTemplateError
from runtime.serve.metrics import Counted, Metrics, TokenClock
from runtime.serve.protocol import ChatRequest, CompletionRequest, RequestError, error_body
from runtime.serve.service import BusyError, Service
from runtime.serve.text_cutter import TextCutter

MAX_CONTEXT = 4096  # tokens of prompt and completion together
LONGEST_PROMPT = 16 * MAX_CONTEXT  # characters: a longer text is not made into tokens to find that they are too many
SHORT_PROMPT = 2048  # characters: made into tokens in a millisecond, they are not handed to a thread
MOST_BODY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be served."""

    request: CompletionRequest
    form: Form
    choices: Sequence[Choice]  # for each prompt all of its texts, one prompt after another
    prompt_tokens: int

    @property
    def completions(self) -> dict[Completion, Choice]:
        return {choice.completion: choice for choice in self.choices}

    def usage(self) -> dict[str, int]:
        completed = sum(len(choice.token_ids) for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completed,
            "total_tokens": self.prompt_tokens + completed,
        }

    def answered(self) -> list[dict[str, Any]]:
        """As many choices of each prompt as were asked for, the likeliest of those there are."""
        wanted, tries = self.request.n, self.request.tries
        found = []
        for first in range(0, len(self.choices), tries):
            of_prompt = self.choices[first : first + tries]
            best = sorted(of_prompt, key=Choice.mean_likelihood, reverse=True)[:wanted] if tries > wanted else of_prompt
            found += [choice.whole() for choice in best]
        return [self.form.of_whole({**choice, "index": index}) for index, choice in enumerate(found)]


class Completions:
    """Answers completion requests with one generator."""

    def __init__(self, generator: Generator, name: str, verify_every: int) -> None:
        self.name, self.service, self.metrics = name, Service(generator.engine()), Metrics()
        self._generator, self._one = generator, CapacityLimiter(1)
        self._shadow = generator.shadow(verify_every) if verify_every else None
        self.service.engine.decoder.watch = self._shadow
        self.service.engine.decoder.make_pages()
        HELPER.get_ready()
        if isinstance(generator.placement, DiskPlacement):
            self.metrics.rows(generator.placement.caches)
        for gauge, about, value in (
            ("waiting", "Texts that wait for their turn.", lambda: self.service.waiting),
            ("running", "Texts that are being continued.", lambda: len(self.service.engine.scheduler.running)),
            ("mismatches", "Positions whose rows or vectors were not those of the rule (--verify).", self._mismatches),
        ):
            self.metrics.gauge(gauge, about, value)

    def _mismatches(self) -> int:
        return self._shadow.mismatches if self._shadow else 0

    def unready(self) -> str | None:
        """Why nothing should be asked here; None where all is well."""
        if self._mismatches():
            return "rows or vectors were read that are not those of the rule"
        return self.service.failure

    async def chat_asked(self, request: ChatRequest) -> Asked:
        """Raises as `asked` does, and where the model has no chat template."""
        self._check_model(request.model)
        messages = [message.plain() for message in request.messages]
        if sum(len(message["content"]) for message in messages) > LONGEST_PROMPT:
            raise _too_long(f"at most {LONGEST_PROMPT} characters of messages are served", "messages")
        if any(SURROGATE.search(message["content"]) for message in messages):
            raise RequestError("a message holds half of a surrogate pair, which is no text", "messages", "invalid_value")
        try:
            prompt = await to_thread.run_sync(self._generator.chat, messages, limiter=self._one)
        except NoTemplateError as e:
            hint = "ask /v1/completions"
            raise RequestError(f"{self.name!r} has no chat template; {hint}", "messages", "no_chat_template") from e
        except UsageError as e:
            raise RequestError(str(e), "messages", "invalid_value") from e
        return await self.asked(request.completion(prompt, MAX_CONTEXT - len(prompt)), CHAT)

    def _check_model(self, name: str) -> None:
        if name != self.name:
            raise RequestError(f"the model {name!r} is not served here; {self.name!r} is", "model", "model_not_found", 404)

    async def asked(self, request: CompletionRequest, form: Form = COMPLETION) -> Asked:
        """Raises RequestError for what cannot be served, and BusyError for what cannot be served now."""
        self._check_model(request.model)
        if not (prompts := request.prompts()):
            raise RequestError("prompt is an empty list; expected at least one prompt", "prompt", "invalid_value")
        size = self._generator.vocab_size
        if outside := [token for token in request.logit_bias if int(token) >= size]:
            raise RequestError(
                f"token id {outside[0]} is outside the vocabulary of {size} tokens", "logit_bias", "invalid_value"
            )
        encoded = [await self._prompt_ids(prompt, request.max_tokens) for prompt in prompts]
        choices = [
            self._choice(request, ids, place * request.tries + number, number)
            for place, ids in enumerate(encoded)
            for number in range(request.tries)
        ]
        self.service.check_room(len(choices))
        return Asked(request, form, choices, sum(map(len, encoded)))

    async def _prompt_ids(self, prompt: str | list[int], max_tokens: int) -> list[int]:
        if isinstance(prompt, str):
            if SURROGATE.search(prompt):
                raise RequestError("prompt holds half of a surrogate pair, which is no text", "prompt", "invalid_value")
            if len(prompt) > LONGEST_PROMPT:
                raise _too_long(f"at most {LONGEST_PROMPT} characters of prompt are served; found {len(prompt)}")
            encode = self._generator.encode
            at_once = len(prompt) <= SHORT_PROMPT
            ids = encode(prompt) if at_once else await to_thread.run_sync(encode, prompt, limiter=self._one)
        else:
            ids = prompt or self._generator.encode("")
        if (largest := max(ids)) >= (size := self._generator.vocab_size):
            raise RequestError(f"token id {largest} is outside the vocabulary of {size} tokens", "prompt", "invalid_value")
        if (tokens := len(ids) + max_tokens) > MAX_CONTEXT or not self.service.engine.scheduler.fits(tokens):
            found = f"{len(ids)} in the prompt and {max_tokens} in the completion"
            raise _too_long(f"at most {MAX_CONTEXT} tokens are served; found {found}")
        return ids

    def _choice(self, request: CompletionRequest, prompt: list[int], index: int, number: int) -> Choice:
        tokenizer, sampling = self._generator.tokenizer, request.sampling(number)
        ranked = 0 if request.tries > request.n else None
        likeliest = ranked if request.logprobs is None else request.logprobs
        of_prompt = request.echo and request.logprobs is not None
        completion = Completion(list(prompt), sampling, TextCutter(tokenizer, sampling.stop), likeliest, of_prompt)
        echo = str(tokenizer.decode(prompt, skip_special_tokens=False)) if request.echo else None
        finish_reason = None if completion.has_work else "length"
        return Choice(index, completion, tokenizer, echo, request.logprobs is not None, finish_reason=finish_reason)

    async def whole(self, asked: Asked) -> dict[str, Any]:
        choices = asked.completions
        async with self.service.joined(self._clocks(asked), streams=False) as inbox:
            for completion, piece in await inbox.take() if inbox.unfinished else ():
                choices[completion].add(_sound(piece))
        return {**self._header(asked.form, asked.form.whole), "choices": asked.answered(), "usage": asked.usage()}

    async def stream(self, asked: Asked) -> AsyncIterator[bytes]:
        form, choices = asked.form, asked.completions
        header = self._header(form, form.part)
        for choice in asked.choices:
            if form.opening:
                yield _event({**header, "choices": [form.opening(choice.index)]})
            if not choice.completion.has_work:
                yield _event({**header, "choices": [form.of_part(choice.whole())]})
        events = b""
        try:
            async with self.service.joined(self._clocks(asked), streams=True) as inbox:
                unfinished = inbox.unfinished
                while unfinished:
                    taken = await inbox.take()
                    unfinished -= sum(piece.finish_reason is not None for _, piece in taken)
                    added = [choices[completion].add(_sound(piece)) for completion, piece in taken]
                    events = b"".join(_event({**header, "choices": [form.of_part(choice)]}) for choice in added)
                    if unfinished:
                        yield events
        except EngramError as e:
            yield _event(_failed(e).body)
            return
        with_usage = asked.request.stream_options.include_usage
        usage = _event({**header, "choices": [], "usage": asked.usage()}) if with_usage else b""
        yield events + usage + b"data: [DONE]\n\n"

    def _clocks(self, asked: Asked) -> dict[Completion, TokenClock]:
        """Of the completions that are to be continued."""
        self.metrics.prompt_tokens.inc(asked.prompt_tokens)
        return {choice.completion: TokenClock(self.metrics) for choice in asked.choices if choice.completion.has_work}

    def _header(self, form: Form, kind: str) -> dict[str, Any]:
        return {"id": f"{form.id_prefix}{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.name}


def _sound(piece: Piece) -> Piece:
    """Raises EngramError for a completion that cannot go on."""
    if piece.finish_reason == "error":
        raise EngramError("the model gives no finite logits here")
    return piece


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"


def _too_long(message: str, member: str = "prompt") -> RequestError:
    return RequestError(message, member, "context_length_exceeded")


def _failed(error: EngramError) -> RequestError:
    return RequestError(f"the model cannot go on: {error}", None, "unavailable", 503)


async def while_connected(request: Request, answer: Callable[[], Awaitable[Any]]) -> Any:
    """What `answer` gives or raises; it is cancelled when the client leaves, and nothing is given."""
    found: list[Any] = []
    failed: list[EngramError] = []  # a group of tasks would raise a group of errors
    async with create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            found.append(await answer())
        except EngramError as e:
            failed.append(e)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    return found[0] if found else None


def build_app(generator: Generator, name: str, verify_every: int = 0, api_key: str = "") -> FastAPI:
    """In one of `verify_every` steps rows and vectors are checked; 0: in none. With an `api_key`, who asks has to name it."""
    completions = Completions(generator, name, verify_every)
    started = int(time.time())

    @asynccontextmanager
    async def at_work(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(completions.service.run())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    app = FastAPI(title="engram", lifespan=at_work, docs_url=None, redoc_url=None)
    app.state.engine = completions.service.engine
    app.add_middleware(BodyLimit, most_bytes=MOST_BODY_BYTES)
    if api_key:
        app.add_middleware(ApiKey, key=api_key)
    app.add_middleware(Counted, metrics=completions.metrics)

    @app.post("/v1/completions", response_model=None)
    async def complete(body: CompletionRequest, request: Request) -> Response | None:
        return await answered(await completions.asked(body), request)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response | None:
        return await answered(await completions.chat_asked(body), request)

    async def answered(asked: Asked, request: Request) -> Response | None:
        if asked.request.stream:
            return StreamingResponse(completions.stream(asked), media_type="text/event-stream")
        answer = await while_connected(request, lambda: completions.whole(asked))
        return Response(to_json(answer), media_type="application/json") if answer else None

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": started, "owned_by": "engram"}]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        reason = completions.unready()
        return JSONResponse({"status": "not ready", "reason": reason}, 503) if reason else JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(completions.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    """In OpenAI's shape."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, e: RequestError) -> JSONResponse:
        return JSONResponse(e.body, e.status)

    @app.exception_handler(BusyError)
    async def busy(_: Request, e: BusyError) -> JSONResponse:  # noqa: ARG001
        body = error_body("too many requests are waiting; try again in a second", None, "busy", "server_error")
        return JSONResponse(body, 429, {"Retry-After": "1"})

    @app.exception_handler(EngramError)
    async def failed(_: Request, e: EngramError) -> JSONResponse:
        error = _failed(e)
        return JSONResponse(error.body, error.status)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str)) or None
        return JSONResponse(error_body(f"{where or 'the body'}: {first['msg']}", where, "invalid_value"), 400)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, e: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(f"{request.method} {request.url.path}: {e.detail}"), e.status_code)
