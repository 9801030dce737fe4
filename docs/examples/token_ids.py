"""Tokens in, tokens out: python token_ids.py MODEL TOKENIZER_JSON "PROMPT" [HOST:PORT]."""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tokenizers import Tokenizer

model, tokenizer_file, prompt, url = (*sys.argv[1:], "127.0.0.1:8001")[:4]
tokenizer = Tokenizer.from_file(tokenizer_file)
values = {
    "input_ids": np.array([tokenizer.encode(prompt).ids], dtype=np.int32),  # (1, tokens)
    "max_tokens": np.array([[64]], dtype=np.int32),
    "stream": np.array([[True]]),
}
inputs = []
for name, value in values.items():
    inputs.append(triton.InferInput(name, value.shape, triton.np_to_triton_dtype(value.dtype)))
    inputs[-1].set_data_from_numpy(value)

answers, ids = queue.Queue(), []
with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(model, inputs, enable_empty_final_response=True)
    while True:
        result, error = answers.get(timeout=60)
        if error:
            sys.exit(str(error))
        if (new := result.as_numpy("output_ids")) is not None:  # (1, sequences, tokens)
            ids += new[0, 0].tolist()
            print(*new[0, 0], end=" ", flush=True)
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
print(f"\n{tokenizer.decode(ids)}")
