from __future__ import annotations

import pytest

from scalellm_trt.triton import server_log

BAD_MODEL = r"""
E1121 04:02:22.078095 12083 backend_model.cc:692] "ERROR: Failed to create instance: ValueError: num_layers is missing\n\nAt:\n  model.py(3): initialize\n"
E1121 04:02:22.078211 12083 model_lifecycle.cc:642] "failed to load 'bad' version 1: Internal: ValueError: num_layers is missing\n\nAt:\n  model.py(3): initialize\n"
error: creating server: Internal - failed to load all models
"""  # noqa: E501
BAD_CONFIG = """
[libprotobuf ERROR text_format.cc:337] Error parsing text-format inference.ModelConfig: 1:20: Message type "inference.ModelConfig" has no field named "backned".
E1121 04:02:24.109243 12223 model_repository_manager.cc:1460] "Poll failed for model directory 'cfg': failed to read text proto from cfg/config.pbtxt"
error: creating server: Internal - failed to load all models
"""  # noqa: E501
STRAY = """
E1121 04:02:25.140870 12235 model_repository_manager.cc:1460] "Poll failed for model directory 'notes': Invalid model name: Could not determine backend for model 'notes' with no backend in model configuration."
"""  # noqa: E501
HIDDEN = """
E1121 04:25:29.562308 29067 model_repository_manager.cc:724] "failed to load model '.hidden': at least one version must be available"
"""  # noqa: E501
PORT = """
E1121 04:02:31.647786 12351 main.cc:245] "failed to start GRPC service: Unavailable - Socket '127.0.0.1:18001' already in use "
"""  # noqa: E501
LIBRARY = "tritonserver: error while loading shared libraries: libcudart-09529672.so.12.6.77: cannot open shared object"
CONTAINER = (
    'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n\n'
    "Run 'docker run --help' for more information"
)
OTHER = "error: creating server: Internal - failed to stat file nowhere"


@pytest.mark.parametrize(
    ("log", "reasons"),
    [
        (
            BAD_MODEL,
            [
                "the model bad failed to load: Internal: ValueError: num_layers is missing\n"
                "    At:\n      model.py(3): initialize"
            ],
        ),
        (
            BAD_CONFIG,
            [
                'the directory cfg is not a model: 1:20: Message type "inference.ModelConfig" has no field '
                'named "backned".'
            ],
        ),
        (
            STRAY,
            [
                "the directory notes is not a model: Invalid model name: Could not determine backend for model 'notes' "
                "with no backend in model configuration."
            ],
        ),
        (HIDDEN, ["the model .hidden failed to load: at least one version must be available"]),
        (PORT, ["127.0.0.1:18001 (GRPC) is already in use"]),
        (LIBRARY, ["libcudart-09529672.so.12.6.77: cannot open shared object"]),
        (
            CONTAINER,
            ['the container did not start: could not select device driver "" with capabilities: [[gpu]].'],
        ),
        (OTHER, ["Internal - failed to stat file nowhere"]),
        ("I1121 all is well", []),
    ],
)
def test_the_reason_is_found(log: str, reasons: list[str]) -> None:
    assert server_log.failure_reasons(log.splitlines()) == reasons


def test_models_are_told_apart_by_how_far_they_are() -> None:
    lines = [
        'I1121 model_lifecycle.cc:472] "loading: chat:1"',
        'I1121 model_lifecycle.cc:472] "loading: code-2.b:1"',
        "I1121 model_lifecycle.cc:839] \"successfully loaded 'code-2.b'\"",
    ]
    assert server_log.models_in_progress(lines) == (["chat", "code-2.b"], ["code-2.b"])


def test_the_last_lines_are_those_that_tell_something() -> None:
    lines = ["one", "", "+---+", "| a |", "+---+", "two", "x" * 400]
    assert server_log.last_lines(lines, 2) == ["two", "x" * 300 + "…"]
