"""Services of `paced_model` in a repository for server and gateway: one with a step of 10 ms and one without."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from scalellm_trt.artefacts.types import TritonModel
from scalellm_trt.backends.text_model import TEXT_INPUTS, TEXT_OUTPUTS
from scalellm_trt.runtime.settings import ServiceSettings
from scalellm_trt.triton import repository

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS, COLUMNS, LEFT = 8192, 512, 511
NUM_WORDS = 1000
WORD_LENGTH = 4
STEPS_MS = {"paced": 10, "unpaced": 0}
"""By the pace's name, which is the service's too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a step takes, and what each request adds to it."""

    step_ms: float
    request_ms: float = 0.0


DEFAULT_PACES = {name: Pace(step_ms=step_ms) for name, step_ms in STEPS_MS.items()}


def write(
    directory: Path, paces: Mapping[str, Pace] = DEFAULT_PACES
) -> tuple[Path, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Write the repository below `directory`; return its root, and the times that its models will fill in."""
    emissions = directory / "emissions"
    times = np.memmap(emissions, dtype=np.float64, mode="w+", shape=(ROWS, COLUMNS))
    engine = directory / "engine"
    engine.mkdir()
    _write_tokenizer(engine)
    root = directory / "triton_repo"
    for name, pace in paces.items():
        repository.publish(
            [_model(name, pace, engine, emissions)],
            service=name,
            recipe=f"{name}.yaml",
            owner_digest="0" * 64,
            engine_digest="1" * 64,
            root=root,
            state_dir=repository.state_dir_for(root, directory / "builds"),
        )
    return root, times


def _model(name: str, pace: Pace, engine: Path, emissions: Path) -> TritonModel:
    settings = ServiceSettings(
        engine="openvino",
        engine_directory="engine",
        vocab_size=256 + NUM_WORDS,
        eos_token_ids=(0,),
        max_batch_size=1024,
        max_input_len=4096,
        max_seq_len=8192,
        max_num_tokens=4096,
        kv_cache_tokens=8192,
    )
    return TritonModel(
        name=name,
        backend="python",
        max_batch_size=1,
        inputs=TEXT_INPUTS,
        outputs=TEXT_OUTPUTS,
        parameters={"step_ms": str(pace.step_ms), "request_ms": str(pace.request_ms), "emissions": str(emissions)},
        default_model_filename="paced_model.py",
        source_files={"paced_model.py": Path(__file__).with_name("paced_model.py")},
        directories={"engine": engine},
        settings=settings.to_json(),
    )


def _write_tokenizer(directory: Path) -> None:
    """Write a byte-level vocabulary with 1000 words of a space and three letters each, and a chat template."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = "abcdefghij"
    words = [f"Ġ{a}{b}{c}" for a in letters for b in letters for c in letters]
    vocabulary = {text: index for index, text in enumerate([*characters, *words])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
