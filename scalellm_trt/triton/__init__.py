"""Triton Inference Server: what it reads (config.pbtxt, the repository), how it is run, how it is asked.

`model_config` renders a model's config.pbtxt, `repository` assembles and switches services, `binary` finds and
sets up tritonserver, `server` runs it, `client` streams from it, `chat_template` makes a prompt of messages.
"""
