"""`docs/reference/gateway.md` and the JSON schema for editors, made from the configuration's schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

from scalellm_trt.gateway.config_schema import GatewayConfig
from scalellm_trt.recipe.json_schema import without_titles
from scalellm_trt.recipe.reference import key_tables

if TYPE_CHECKING:
    from scalellm_trt.recipe.json_schema import JsonObject

_INTRODUCTION: Final = """\
# Gateway configuration reference

Generated from the schema by `scripts/generate_docs.py`; do not edit.

`scalellm-trt gateway --config gateway.yaml` reads one YAML file; every key has a default, and options of the command
line win over the file. A relative path counts from the file. The YAML is read as a recipe's is: unknown and duplicate
keys, anchors, tags and ambiguous words are refused, every problem at once, as `file:line: key: found, allowed, next
step`. Editors complete and check with `scalellm_trt/data/gateway.schema.json`. Secrets do not belong into it: one key
may stand in `SCALELLM_API_KEY` of the environment, others in the file of hashed keys.

```yaml
# yaml-language-server: $schema=../scalellm_trt/data/gateway.schema.json
listen:
  host: 0.0.0.0
  port: 443
  tls_certificate: gateway.pem
  tls_key: gateway-key.pem
keys:
  file: gateway.keys
limits:
  max_streams: 128
```
"""


def gateway_reference() -> str:
    """Return the reference as Markdown."""
    return "\n".join([_INTRODUCTION, *key_tables(GatewayConfig)])


def gateway_json_schema() -> str:
    """Return the content of `data/gateway.schema.json`."""
    schema = without_titles(cast("JsonObject", GatewayConfig.model_json_schema(by_alias=True)))
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "scalellm-trt gateway", **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
