"use strict";
// The token stays in this page's memory: it is in no storage, no URL and no cookie.
const at = (id) => document.getElementById(id);
const NAMED = 10;
const UNITS = [["year", 31557600], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
let asked = null; // what the rows on show were asked with: { token, prefix }
let following = null;
let now = new Date(); // the service's clock, as of its last answer

async function ask(path, token) {
  const sent = { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" };
  const answer = await fetch(path, sent).catch(() => { throw new Error("The service does not answer."); });
  now = new Date(answer.headers.get("Date") ?? Date.now());
  const body = await answer.json().catch(() => null);
  if (!answer.ok || body === null) throw new Error(body?.detail ?? body?.title ?? `The service answered ${answer.status}.`);
  return body;
}

// The time alone is of today; any other day is named.
function moment(when) {
  const today = when.toDateString() === now.toDateString();
  return today ? when.toLocaleTimeString() : when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function left(until) {
  const seconds = Math.max(0, Math.floor((until - now) / 1000));
  const [unit, size] = UNITS.find((each) => seconds >= each[1]) ?? UNITS.at(-1);
  return new Intl.NumberFormat("en", { style: "unit", unit, unitDisplay: "long" }).format(Math.floor(seconds / size));
}

const several = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

// Of the last check of each session; null: there was none.
function findings(open) {
  if (open === null) return "never checked";
  const found = [open.error && several(open.error, "error"), open.warning && several(open.warning, "warning")];
  return found.filter(Boolean).join(", ") || "none";
}

function made(kind, text, style) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (style) element.className = style;
  return element;
}

function cell(row, name, text, style) {
  const added = made("td", text, style);
  added.dataset.name = name;
  row.append(added);
  return added;
}

function lease(taken) {
  if (!taken) return "";
  const until = new Date(taken.expires_at);
  return `${taken.holder}, until ${moment(until)}, ${left(until)} left`;
}

function show(session) {
  const row = at("sessions").tBodies[0].insertRow();
  const types = Object.values(session.keys);
  const sum = (member) => types.reduce((total, type) => total + type[member], 0);
  cell(row, "Session", session.session, "name");
  cell(row, "Paired", session.paired ? "yes" : "no");
  cell(row, "Lease", lease(session.lease));
  cell(row, "Version", session.version, "number");
  cell(row, "Keys", sum("count"), "number");
  cell(row, "KiB", (sum("bytes") / 1024).toFixed(1), "number");
  cell(row, "Updated", moment(new Date(session.updated_at)), "time");
  const button = made("button", "Check");
  cell(row, "Whole", "").append(button);
  button.addEventListener("click", trying(() => check(session.session, button)));
}

// Findings that say the same of several keys are one line.
function lines(found) {
  const alike = new Map();
  for (const each of found) {
    const said = [each.rule, each.type, each.message].filter(Boolean).join(" · ");
    alike.set(said, [...(alike.get(said) ?? []), each.id].filter(Boolean));
  }
  return [...alike].map(([said, ids]) => {
    const named = ids.slice(0, NAMED).join(", ") + (ids.length > NAMED ? `, and ${ids.length - NAMED} more` : "");
    return named ? `${said} (${named})` : said;
  });
}

async function check(name, button) {
  const { errors, warnings, findings: found } = await ask(`/v1/sessions/${encodeURIComponent(name)}/integrity`, asked.token);
  const row = button.closest("tr");
  const verdict = errors + warnings ? findings({ error: errors, warning: warnings }) : "yes";
  button.replaceWith(made("span", verdict, errors ? "bad" : ""));
  if (!found.length) return;
  const list = document.createElement("ul");
  list.append(...lines(found).map((line) => made("li", line)));
  const below = made("tr", "", "findings");
  const across = made("td", "", "list");
  across.colSpan = row.cells.length;
  across.append(list);
  below.append(across);
  row.after(below);
}

function count(where, name, value) {
  const pair = document.createElement("div");
  pair.append(made("dt", name), made("dd", value));
  at(where).append(pair);
}

async function page() {
  const query = new URLSearchParams({ prefix: asked.prefix, limit: "50" });
  if (following) query.set("cursor", following);
  const listed = await ask(`/v1/sessions?${query}`, asked.token);
  listed.sessions.forEach(show);
  following = listed.next;
  const rows = at("sessions").tBodies[0].querySelectorAll("td.name").length;
  at("sessions").hidden = rows === 0;
  at("more").hidden = following === null;
  at("told").textContent = rows ? `As of ${now.toLocaleTimeString()}` : `There is no session${asked.prefix ? " whose name begins so" : " yet"}.`;
}

async function start() {
  following = null;
  asked = { token: at("token").value.trim(), prefix: at("prefix").value };
  for (const each of [at("counts"), at("types"), at("sessions").tBodies[0]]) each.replaceChildren();
  at("told").textContent = "";
  at("sessions").hidden = at("more").hidden = true;
  const health = await ask("/health/whatsapp", asked.token);
  for (const name of ["sessions", "paired", "leased"]) count("counts", name, health[name]);
  count("counts", "findings of the last checks", findings(health.open_findings));
  for (const [type, keys] of Object.entries(health.keys)) count("types", type, keys);
  await page();
}

const trying = (work) => async (event) => {
  event.preventDefault();
  at("error").textContent = "";
  const pressed = event.submitter ?? event.currentTarget;
  pressed.disabled = at("asking").disabled = true;
  try {
    await work();
  } catch (error) {
    at("error").textContent = error.message;
  } finally {
    pressed.disabled = at("asking").disabled = false;
  }
};
at("ask").addEventListener("submit", trying(start));
at("more").addEventListener("click", trying(page));
