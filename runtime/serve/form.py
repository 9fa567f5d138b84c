"""Form: how an answer is written, as a completion or as a chat.

Choices come as completions write them; a chat says the same in other members.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ChoiceJson = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    id_prefix: str
    whole: str  # the `object` of an answer
    part: str  # of a part of a stream
    of_whole: Callable[[ChoiceJson], ChoiceJson]
    of_part: Callable[[ChoiceJson], ChoiceJson]
    opening: Callable[[int], ChoiceJson] | None = None  # what the stream of a choice begins with


def _message(choice: ChoiceJson) -> ChoiceJson:
    message = {"role": "assistant", "content": choice["text"], "refusal": None}
    return {
        "index": choice["index"],
        "message": message,
        "logprobs": _content_logprobs(choice),
        "finish_reason": choice["finish_reason"],
    }


def _delta(choice: ChoiceJson) -> ChoiceJson:
    return {
        "index": choice["index"],
        "delta": {"content": choice["text"]} if choice["text"] else {},
        "logprobs": _content_logprobs(choice),
        "finish_reason": choice["finish_reason"],
    }


def _opening(index: int) -> ChoiceJson:
    return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}


def _content_logprobs(choice: ChoiceJson) -> dict[str, Any] | None:
    if (given := choice["logprobs"]) is None:
        return None
    own = zip(given["tokens"], given["token_logprobs"], given["top_logprobs"], strict=True)
    return {"content": [{**_entry(token, value), "top_logprobs": _entries(likeliest)} for token, value, likeliest in own]}


def _entries(likeliest: Mapping[str, float]) -> list[dict[str, Any]]:
    return [_entry(token, value) for token, value in likeliest.items()]


def _entry(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "surrogatepass"))}


COMPLETION = Form("cmpl-", "text_completion", "text_completion", lambda choice: choice, lambda choice: choice)
CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk", _message, _delta, _opening)
