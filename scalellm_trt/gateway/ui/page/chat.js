// The box in which an operator tries a model.

import { ask } from "./answer.js";
import { byId, element } from "./dom.js";
import { count, milliseconds, rate } from "./format.js";
import { RememberedKey } from "./keys.js";

const REASONS = { stop: "complete", length: "cut at max tokens" };

export class Chat {
  constructor() {
    this.conversation = [];
    this.running = null;
    this.otherKey = "";
    this.key = new RememberedKey(byId("api-key"), byId("remember"));
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("ask").requestSubmit();
    });
    byId("stop").addEventListener("click", () => this.running?.abort());
    byId("clear").addEventListener("click", () => this.clear());
  }

  // Where clients need no key of their own, an operator's opens the API here, too.
  offer(models, needsKey, adminKey) {
    this.otherKey = needsKey ? "" : adminKey;
    byId("key-box").hidden = !needsKey;
    const select = byId("model");
    if ([...select.options].map((option) => option.value).join() === models.map((model) => model.name).join()) return;
    const chosen = select.value;
    const options = models.map((model) => {
      const option = element("option", { value: model.name, text: model.can_chat ? model.name : `${model.name} (cannot chat)` });
      option.disabled = !model.can_chat;
      return option;
    });
    select.replaceChildren(...options);
    if (models.some((model) => model.name === chosen)) select.value = chosen;
  }

  async send() {
    const prompt = byId("prompt");
    const text = prompt.value.trim();
    if (!text || this.running) return;
    const question = { role: "user", content: text };
    this.add(element("p", { class: "said user", text }));
    prompt.value = "";
    const answer = this.add(element("p", { class: "said model open" }));
    const speed = this.add(element("p", { class: "speed", text: "waiting for the first token" }));
    this.begin();
    let said = "";
    try {
      const result = await ask(this.request([...this.conversation, question]), {
        key: this.key.value || this.otherKey,
        signal: this.running.signal,
        onText: (piece, ttft) => {
          if (!said) speed.textContent = `first token ${milliseconds(ttft).join(" ")}`;
          said += piece;
          answer.append(piece);
          this.follow();
        },
      });
      speed.textContent = summary(result);
      this.conversation.push(question, { role: "assistant", content: said });
    } catch (error) {
      this.fail(error, { question, said, answer, speed });
    } finally {
      answer.classList.remove("open");
      this.end();
    }
  }

  request(messages) {
    return {
      model: byId("model").value,
      messages,
      max_tokens: Number(byId("max-tokens").value),
      temperature: Number(byId("temperature").value),
    };
  }

  fail(error, { question, said, answer, speed }) {
    if (this.running.signal.aborted) {
      speed.textContent = said ? `${speed.textContent} · stopped` : "stopped";
      if (said) this.conversation.push(question, { role: "assistant", content: said });
      return;
    }
    speed.remove();
    if (!said) answer.remove();
    this.add(element("p", { class: "failed", role: "alert", text: readable(error) }));
    if (error.status === 401) {
      byId("key-box").hidden = false;
      byId("key-box").open = true;
      byId("api-key").focus();
    }
    if (!said) byId("prompt").value = question.content;
  }

  begin() {
    this.running = new AbortController();
    byId("send").hidden = true;
    byId("stop").hidden = false;
    byId("clear").disabled = true;
  }

  end() {
    this.running = null;
    byId("send").hidden = false;
    byId("stop").hidden = true;
    byId("clear").disabled = false;
    this.follow();
  }

  clear() {
    this.conversation = [];
    byId("messages").replaceChildren(byId("empty"));
    byId("empty").hidden = false;
    byId("clear").disabled = true;
  }

  add(line) {
    byId("empty").hidden = true;
    byId("messages").append(line);
    this.follow(true);
    return line;
  }

  // Stay at the end, unless the reader has scrolled up.
  follow(always = false) {
    const box = byId("messages");
    if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 60) box.scrollTop = box.scrollHeight;
  }
}

function summary({ ttft_ms, tokens, tokens_per_s, reason }) {
  const parts = [];
  if (ttft_ms !== null) parts.push(`first token ${milliseconds(ttft_ms).join(" ")}`);
  if (tokens !== null) parts.push(`${count(tokens)} tokens`);
  if (tokens_per_s !== null) parts.push(`${rate(tokens_per_s)} tokens/s`);
  parts.push(REASONS[reason] ?? reason);
  return parts.join(" · ");
}

function readable(error) {
  if (error instanceof TypeError) return "The gateway cannot be reached.";
  return error.message;
}
