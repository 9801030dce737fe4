"""What users of LangChain and Pydantic AI write: `python -m tests.fakes.other_clients NAME URL MODEL`.

They print what they got as JSON. Both libraries leave their connections to the end of the process, which is why it is
not pytest's.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "What is the capital of France?"


def langchain_chat(url: str, model: str) -> Any:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=url, api_key=SecretStr("none"), temperature=0, max_retries=0)
    answer = chat.invoke(QUESTION)
    usage: Any = answer.usage_metadata
    parts = list(chat.stream([("system", "You are a helpful AI assistant."), ("user", QUESTION)]))
    # A conversation that goes on holds the answer as LangChain writes it back.
    again = chat.invoke([("user", QUESTION), answer, ("user", "Thank you.")])
    return {
        "text": answer.content,
        "tokens": [usage[name] for name in ("input_tokens", "output_tokens")],
        "finish_reason": answer.response_metadata["finish_reason"],
        "streamed": "".join(str(part.content) for part in parts),
        "num_parts": len(parts),
        "batch": [part.content for part in chat.batch([QUESTION] * 3)],
        "again": again.content,
        "stopped": chat.bind(stop=["capital"], logprobs=True).invoke(QUESTION).content,
    }


def langchain_completion(url: str, model: str) -> Any:
    from langchain_openai import OpenAI

    completer = OpenAI(model=model, base_url=url, api_key=SecretStr("none"), temperature=0, max_tokens=8, max_retries=0)
    prompts = ["1, 2, 3,", "Monday, Tuesday,"]
    return {
        "together": [generations[0].text for generations in completer.generate(prompts).generations],
        "apart": [completer.invoke(prompt) for prompt in prompts],
        "streamed": "".join(completer.stream(prompts[0])),
    }


def pydantic_ai(url: str, model: str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=url, api_key="none")
    agent = Agent(OpenAIChatModel(model, provider=provider), model_settings={"temperature": 0.0})
    answer = agent.run_sync(QUESTION)
    return {
        "text": answer.output,
        "tokens": [answer.usage.input_tokens, answer.usage.output_tokens],
        "again": agent.run_sync("And of Italy?", message_history=answer.all_messages()).output,
        "streamed": list(agent.run_stream_sync(QUESTION).stream_text())[-1],
    }


CLIENTS: dict[str, Callable[[str, str], Any]] = {
    each.__name__: each for each in (langchain_chat, langchain_completion, pydantic_ai)
}

if __name__ == "__main__":
    name, url, model = sys.argv[1:]
    print(json.dumps(CLIENTS[name](url, model)))
