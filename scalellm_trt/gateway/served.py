"""A repository on disk in, the models that the gateway offers out: tokenizer, template, limits, inputs of each."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import ArtefactError
from scalellm_trt.gateway import engine_tensors, tensors
from scalellm_trt.runtime import settings
from scalellm_trt.runtime.detokenizer import UnsupportedTokenizerError
from scalellm_trt.runtime.tokenizer import PromptTokenizer
from scalellm_trt.triton import chat_template, repository_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.gateway.contract import Asked
    from scalellm_trt.gateway.tensors import Generation
    from scalellm_trt.runtime.settings import ServiceSettings
    from scalellm_trt.triton.chat_template import ChatTemplate
    from scalellm_trt.triton.repository_manifest import Version

    Tokenizers = dict[tuple[str, bool, bool, int | None], PromptTokenizer]

TOKEN_CONTRACT = frozenset({"input_ids", "max_tokens", "stream"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayModel:
    """One model that takes tokens.

    Attributes:
        created: when it was built, in seconds since 1970.
        fingerprint: names the engine's files; another one may answer differently.
        template: None for a base model, which cannot chat.
        inputs: names of the tensors that it takes.
        engine_inputs: names of the tensors of the engine's own model, `settings.engine_model`, where there is one.
    """

    name: str
    created: int
    fingerprint: str
    settings: ServiceSettings
    tokenizer: PromptTokenizer
    template: ChatTemplate | None
    inputs: frozenset[str]
    engine_inputs: frozenset[str] = frozenset()

    @property
    def asks_engine(self) -> bool:
        """Whether tokens come from the engine's own model, without this one between."""
        return self.engine_inputs >= engine_tensors.REQUIRED_INPUTS

    def ask(self, generation: Generation) -> Asked:
        """Return the request for `generation`, to the model that costs least.

        Raises:
            ApiError: it can never be served.
        """
        if self.asks_engine and engine_tensors.can_ask(generation, self.settings):
            reports_reuse = tensors.REUSE_INPUT in self.engine_inputs
            return engine_tensors.ask(generation, self.settings, self.tokenizer, reports_reuse=reports_reuse)
        return tensors.ask(generation, reports_reuse=self.settings.reports_reuse)

    def max_new_tokens(self, num_prompt_tokens: int) -> int:
        """Return how many tokens the engine can add to a prompt of that many; less than 1 is none.

        The last token of an answer is never fed back: it needs no place in the KV cache.
        """
        by_length = self.settings.max_seq_len - num_prompt_tokens
        by_cache = self.settings.kv_cache_tokens - num_prompt_tokens + 1
        return min(by_length, by_cache)


def load(repository: Path) -> Mapping[str, GatewayModel]:
    """Read every model in `repository` that takes tokens, by name.

    Raises:
        ArtefactError: there is none, or one is damaged.
    """
    models: dict[str, GatewayModel] = {}
    tokenizers: Tokenizers = {}
    for service in repository_manifest.read(repository).services.values():
        for name, record in service.current.models.items():
            if frozenset(record.inputs) >= TOKEN_CONTRACT:
                models[name] = _load(repository / name / "1", name, service.current, tokenizers)
    if not models:
        message = f"{repository}: no model that takes tokens"
        raise ArtefactError(message, hint="Build one: scalellm-trt build RECIPE; or name it with --repository.")
    return models


def _load(directory: Path, name: str, version: Version, tokenizers: Tokenizers) -> GatewayModel:
    try:
        service = settings.read(directory / settings.FILE_NAME)
        engine = directory / service.engine_directory
        tokenizer = _tokenizer(engine, service, tokenizers)
    except (settings.SettingsError, UnsupportedTokenizerError) as error:
        raise ArtefactError(str(error), hint="Build the recipe again.") from error
    except Exception as error:
        # tokenizers raises plain Exception for a file that it cannot read.
        message = f"{engine / 'tokenizer.json'}: cannot be read: {error}"
        raise ArtefactError(message, hint="Build the recipe again.") from error
    beside = version.models.get(service.engine_model) if service.engine_model else None
    return GatewayModel(
        name=name,
        created=int(datetime.datetime.fromisoformat(version.created).timestamp()),
        fingerprint=f"fp_{version.engine_digest[:12]}",
        settings=service,
        tokenizer=tokenizer,
        template=chat_template.load(engine),
        inputs=frozenset(version.models[name].inputs),
        engine_inputs=frozenset() if beside is None else frozenset(beside.inputs),
    )


def _tokenizer(engine: Path, service: ServiceSettings, known: Tokenizers) -> PromptTokenizer:
    """Return the tokenizer in a directory; services with the same files share it."""
    digest = hashlib.sha256((engine / "tokenizer.json").read_bytes()).hexdigest()
    key = (digest, service.add_special_tokens, service.skip_special_tokens, service.bos_token_id)
    if key not in known:
        known[key] = PromptTokenizer(engine, service)
    return known[key]
