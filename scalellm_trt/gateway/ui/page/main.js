// Asks the gateway each second what it is doing. A gateway that is gone is asked on until it is there again.

import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { duration } from "./format.js";
import { bearer } from "./keys.js";
import { show } from "./view.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 4000;

const chat = new Chat();
let adminKey = "";
let lastSeen = null;
let timer = null;

async function poll() {
  clearTimeout(timer);
  timer = null;
  if (!document.hidden) await look();
  timer ??= setTimeout(poll, EVERY_MS);
}

async function look() {
  let response;
  let state;
  try {
    response = await fetch("state.json", { headers: bearer(adminKey), signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok) state = await response.json();
  } catch {
    lose("Not connected to the gateway.");
    return;
  }
  if (response.status === 401) lock();
  else if (!state) lose(`The gateway answers with status ${response.status}.`);
  else live(state);
}

function live(state) {
  lastSeen = Date.now();
  connection("live", "Live");
  byId("lost").hidden = true;
  byId("admin").hidden = true;
  byId("watch").classList.remove("stale");
  show(state);
  chat.offer(state.models, state.needs_key, adminKey);
}

function lose(reason) {
  connection("lost", "Not connected");
  const age = lastSeen === null ? "" : ` The numbers are from ${duration((Date.now() - lastSeen) / 1000)} ago.`;
  byId("lost").textContent = `${reason} Trying again each second.${age}`;
  byId("lost").hidden = false;
  byId("watch").classList.add("stale");
}

function lock() {
  connection("locked", "Locked");
  byId("lost").hidden = true;
  byId("admin").hidden = false;
  byId("watch").classList.add("stale");
  const hint = byId("admin-hint");
  hint.classList.toggle("bad", adminKey !== "");
  if (adminKey) hint.textContent = "That is not the gateway's key.";
}

function connection(state, text) {
  const pill = byId("connection");
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  pill.textContent = text;
  document.title = state === "live" ? "ScaleLLM gateway" : `${text} – ScaleLLM gateway`;
}

byId("admin").addEventListener("submit", (event) => {
  event.preventDefault();
  adminKey = byId("admin-key").value.trim();
  poll();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
poll();
