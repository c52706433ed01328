"use strict";
// The token stays in this page's memory: it is in no storage, no URL and no cookie.
const at = (id) => document.getElementById(id);
let following = null;

async function ask(path) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${at("token").value}` }, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title);
  return body;
}

function cell(row, text, kind) {
  const made = row.insertCell();
  made.textContent = text;
  if (kind) made.className = kind;
}

function show(session) {
  const row = at("sessions").tBodies[0].insertRow();
  const types = Object.values(session.keys);
  cell(row, session.session);
  cell(row, session.paired ? "yes" : "no");
  cell(row, session.lease ? `${session.lease.holder}, until ${new Date(session.lease.expires_at).toLocaleTimeString()}` : "");
  cell(row, session.version, "number");
  cell(row, types.reduce((sum, type) => sum + type.count, 0), "number");
  cell(row, (types.reduce((sum, type) => sum + type.bytes, 0) / 1024).toFixed(1), "number");
  cell(row, new Date(session.updated_at).toLocaleString());
}

function count(name, value) {
  const title = document.createElement("dt");
  const figure = document.createElement("dd");
  const pair = document.createElement("div");
  title.textContent = name;
  figure.textContent = value;
  pair.append(title, figure);
  at("counts").append(pair);
}

async function page() {
  const query = new URLSearchParams({ prefix: at("prefix").value, limit: "50" });
  if (following) query.set("cursor", following);
  const listed = await ask(`/v1/sessions?${query}`);
  listed.sessions.forEach(show);
  following = listed.next;
  at("sessions").hidden = false;
  at("more").hidden = following === null;
}

async function start() {
  following = null;
  at("counts").replaceChildren();
  at("sessions").tBodies[0].replaceChildren();
  const health = await ask("/health/whatsapp");
  count("sessions", health.sessions);
  count("paired", health.paired);
  count("leased", health.leased);
  for (const [type, keys] of Object.entries(health.keys)) count(type, keys);
  await page();
}

const trying = (work) => async (event) => {
  event.preventDefault();
  at("error").textContent = "";
  try {
    await work();
  } catch (error) {
    at("error").textContent = error.message;
  }
};
at("ask").addEventListener("submit", trying(start));
at("more").addEventListener("click", trying(page));
