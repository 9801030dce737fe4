"""Stream an answer with tritonclient alone: python stream.py MODEL "PROMPT" [HOST:PORT]."""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

model, prompt, url = (*sys.argv[1:], "127.0.0.1:8001")[:3]
values = {"text_input": ("BYTES", prompt.encode()), "max_tokens": ("INT32", 64), "stream": ("BOOL", True)}
inputs = []
for name, (kind, value) in values.items():
    inputs.append(triton.InferInput(name, [1, 1], kind))
    inputs[-1].set_data_from_numpy(np.array([[value]], dtype=triton.triton_to_np_dtype(kind)))

answers = queue.Queue()
with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(model, inputs, enable_empty_final_response=True)
    while True:
        result, error = answers.get(timeout=60)
        if error:
            sys.exit(str(error))
        if (text := result.as_numpy("text_output")) is not None:
            print(text.item().decode(), end="", flush=True)
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
