// A gateway's state (see /ui/state.json) in, the page's numbers out.

import { draw } from "./chart.js";
import { byId, element, withUnit } from "./dom.js";
import { count, duration, milliseconds, rate, share, words } from "./format.js";

const FRESH_S = 60;

export function show(state) {
  const { minute, queue, series } = state;
  set("requests", rate(minute.requests_per_s));
  set("tokens", rate(minute.generation_tokens_per_s));
  set("running", count(queue.running));
  set("waiting", count(queue.waiting));
  set("max_running", `of ${count(queue.max_running)}`);
  set("max_waiting", `of ${count(queue.max_waiting)}`);
  byId("waiting-tile").classList.toggle("busy", queue.waiting > 0);
  byId("window").textContent = minute.seconds < 59 ? `rates of the last ${Math.max(1, Math.round(minute.seconds))} s` : "rates of the last minute";
  for (const svg of document.querySelectorAll("[data-chart]")) {
    const values = series[svg.dataset.chart];
    draw(svg, values);
    const peak = values.length ? `peak ${rate(Math.max(...values))}` : " ";
    document.querySelector(`[data-peak="${svg.dataset.chart}"]`).textContent = peak;
  }
  showLatency("ttft", minute.ttft_ms, "streams");
  showLatency("itl", minute.itl_ms, "tokens");
  showErrors(minute.errors);
  set("cancelled", count(minute.cancelled));
  set("prompt_tokens", ...withUnit([rate(minute.prompt_tokens_per_s), "/s"]));
  set("cached", ...withUnit(share(minute.cached_share)));
  showServers(state.servers, state.time_s);
  showTenants(state.tenants);
  showAbout(state);
}

function set(name, ...content) {
  for (const place of document.querySelectorAll(`[data-value="${name}"]`)) place.replaceChildren(...content);
}

function showLatency(name, latency, what) {
  for (const key of ["p50", "p90", "p99"]) set(`${name}_${key}`, ...withUnit(milliseconds(latency[key])));
  set(`${name}_count`, latency.count ? `${count(latency.count)} ${what}` : `no ${what}`);
}

function showErrors(errors) {
  const codes = Object.keys(errors).sort();
  const chips = codes.map((code) =>
    element("span", { class: code >= "500" ? "chip server" : "chip", text: `${code} × ${count(errors[code])}` }),
  );
  byId("errors").replaceChildren(...(chips.length ? chips : ["none"]));
}

function showServers(servers, now) {
  const rows = servers.map((server) =>
    element(
      "tr",
      {},
      element("td", { class: "name", title: server.url, text: server.url }),
      element("td", { class: "state" }, element("span", { class: "pill", "data-state": server.state, text: words(server.state) })),
      number("Running", server.running),
      number("Waiting", server.waiting),
      number("Connections", server.connections),
      lastError(server.last_error, now),
    ),
  );
  byId("servers").tBodies[0].replaceChildren(...rows);
}

function number(label, value) {
  return element("td", { class: "number", "data-label": label, text: count(value) });
}

function lastError(error, now) {
  if (error === null) return element("td", { class: "error" });
  const age = Math.max(0, now - error.time_s);
  const cell = element("td", { class: age < FRESH_S ? "error fresh" : "error" });
  cell.append(error.message, element("time", { datetime: new Date(error.time_s * 1000).toISOString(), text: `${duration(age)} ago` }));
  return cell;
}

function showTenants(tenants) {
  byId("tenants-section").hidden = tenants.length === 0;
  if (tenants.length === 0) return;
  const names = [...new Set(tenants.flatMap((tenant) => Object.keys(tenant.values)))].sort();
  const table = byId("tenants");
  const heads = names.map((name) => element("th", { class: "number", text: words(name) }));
  table.tHead.replaceChildren(element("tr", {}, element("th", { text: "Tenant" }), ...heads));
  const rows = tenants.map((tenant) => {
    const cells = names.map((name) => element("td", { class: "number", text: name in tenant.values ? count(tenant.values[name]) : "" }));
    return element("tr", {}, element("td", { class: "name", text: tenant.name }), ...cells);
  });
  table.tBodies[0].replaceChildren(...rows);
}

function showAbout(state) {
  const total = state.total;
  const long = element("span", {
    class: "long",
    text: `${count(total.requests)} requests, ${count(total.generation_tokens)} tokens · ${state.workers === 1 ? "" : `${state.workers} workers · `}`,
  });
  byId("about").replaceChildren(long, `up ${duration(state.age_s)}`, element("span", { class: "long", text: ` · version ${state.version}` }));
}
