from __future__ import annotations

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.model_source import DirectorySource, GgufSource, HubSource, PypiSource, Source, parse


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:meta-llama/Llama-2-13b-chat-hf", HubSource(repository="meta-llama/Llama-2-13b-chat-hf", revision="main")),
        ("hf:o/m@v1.0", HubSource(repository="o/m", revision="v1.0")),
        ("hf:o/m@refs/pr/1", HubSource(repository="o/m", revision="refs/pr/1")),
        ("./models/m", DirectorySource(path="./models/m")),
        ("../m", DirectorySource(path="../m")),
        ("/models/m", DirectorySource(path="/models/m")),
        ("~/m", DirectorySource(path="~/m")),
        ("gguf:models/m.gguf", GgufSource(path="models/m.gguf")),
        ("pypi:a_b==1.0.2/m.gguf", PypiSource(project="a_b", version="1.0.2", file="m.gguf")),
        ("pypi:a-b==1!2.0.post1+l/d/e/m.gguf", PypiSource(project="a-b", version="1!2.0.post1+l", file="d/e/m.gguf")),
    ],
)
def test_each_form_becomes_its_own_type(text: str, source: Source) -> None:
    assert parse(text) == source


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has none of the allowed forms"),
        ("model", "./model"),
        ("meta-llama/Llama-2-7b", "Write hf:meta-llama/Llama-2-7b or ./meta-llama/Llama-2-7b."),
        ("s3:bucket/model", "unknown scheme s3:"),
        ("hf:", "names no hub repository"),
        ("hf:model", "names no hub repository"),
        ("hf:o/../m", "names no hub repository"),
        ("hf:-o/m", "names no hub repository"),
        ("hf:o/m@", "revision ''"),
        ("hf:o/m@--force", "revision '--force'"),
        ("hf:o/m@a/../b", "revision 'a/../b'"),
        ("gguf:", "names no file"),
        ("pypi:p/m.gguf", "no pinned release: 'p'"),
        ("pypi:p>=1/m.gguf", "no pinned release"),
        ("pypi:-rp==1/m.gguf", "no pinned release"),
        ("pypi:p==1 --index-url=http://x/m.gguf", "no pinned release"),
        ("pypi:p==1", "no .gguf file"),
        ("pypi:p==1/m.bin", "no .gguf file"),
        ("pypi:p==1/../m.gguf", "no .gguf file"),
        ("pypi:p==1//m.gguf", "no .gguf file"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text)
    (problem,) = caught.value.problems
    assert problem.key == "model.source"
    assert said in str(problem)
    assert "Allowed: hf:ORG/NAME[@REVISION], ./DIRECTORY, gguf:FILE, pypi:PROJECT==VERSION/FILE.gguf." in str(problem)
