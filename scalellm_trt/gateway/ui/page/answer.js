// One question to /v1/chat/completions: text as it comes, and how fast it came.

import { bearer } from "./keys.js";
import { events } from "./sse.js";

export class AnswerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// Calls onText with each piece; returns {ttft_ms, tokens_per_s, tokens, reason}, what is unknown null.
export async function ask(question, { key, signal, onText }) {
  const started = performance.now();
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...bearer(key) },
    body: JSON.stringify({ ...question, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  let first = null;
  let last = null;
  let usage = null;
  let reason = null;
  for await (const event of events(response.body)) {
    if (event.error) throw new AnswerError(event.error.message, 0);
    usage = event.usage ?? usage;
    const choice = event.choices?.[0];
    reason = choice?.finish_reason ?? reason;
    const text = choice?.delta?.content;
    if (!text) continue;
    last = performance.now();
    first ??= last;
    onText(text, first - started);
  }
  if (reason === null) throw new AnswerError("The answer broke off.", 0);
  const tokens = usage?.completion_tokens ?? null;
  return {
    ttft_ms: first === null ? null : first - started,
    tokens,
    tokens_per_s: tokens > 1 && last > first ? ((tokens - 1) * 1000) / (last - first) : null,
    reason,
  };
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new AnswerError(error.message, response.status);
  } catch {
    return new AnswerError(`The gateway answered with status ${response.status}.`, response.status);
  }
}
