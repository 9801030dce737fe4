"""Does a server speak OpenAI's API? The official client asks it, field by field.

    python -m scripts.conformance --base-url http://127.0.0.1:2345/v1 --model NAME --json result.json

The key is read from OPENAI_API_KEY. Prints a table; exits with 8 if a check fails. A field that a server cannot honour
passes if it is refused with status 400 and its name in `param`: what is ignored in silence fails.
"""
