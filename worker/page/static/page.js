// The page: one stream of events from the worker, six views, and orders.
import { chart, grouped, spread, sum } from "./charts.js";
import { loadModels, showDownloads } from "./models.js";
import { $, ask, make, round, say, showExtras, showHorde, showInstalling, showNow, sure } from "./views.js";

const VIEWS = ["now", "time", "horde", "models", "settings", "log"];
const loaders = { time: loadHistory, horde: loadHorde, models: loadModels, settings: loadSettings, log: loadLog };
let span = 24, keys = null, lines = [], view = "now", heard = 0;

function open() {
  const wanted = location.hash.slice(1);
  view = VIEWS.includes(wanted) ? wanted : "now";
  for (const name of VIEWS) $(name).hidden = name !== view;
  for (const link of $("views").children) {
    if (link.hash === `#${view}`) {
      link.setAttribute("aria-current", "page");
      $("views").scrollLeft = link.offsetLeft - $("views").offsetLeft - 48;  // on a phone it may be out of sight
    }
    else link.removeAttribute("aria-current");
  }
  loaders[view]?.();
}
addEventListener("hashchange", () => { open(); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });

// ---- the stream --------------------------------------------------------------------------------

function connect() {
  const stream = new EventSource("/events");
  const hear = (name, act) => stream.addEventListener(name, (event) => { alive(); act(JSON.parse(event.data)); });
  hear("now", (now) => { showNow(now); showWaiting(now.waiting); followInstalling(now.installing); showDownloads(now.downloads, now.overview.models, view === "models"); });
  hear("log", (more) => { lines = [...lines, ...more].slice(-2000); if (view === "log") showLines(); });
  hear("history", () => { if (view === "time") loadHistory(); });
  hear("beat", () => {});
  stream.onopen = () => { alive(); loaders[view]?.(); };
  stream.onerror = async () => {
    lost();
    if (stream.readyState !== EventSource.CLOSED) return;
    stream.close();
    try { await ask("/api/log"); } catch {}  // a page that is logged out goes to the login
    if ((await fetch("/waiting.js").catch(() => null))?.ok) return location.replace("/");  // ended, and can be started again
    setTimeout(connect, 3000);
  };
}
function alive() { heard = Date.now(); $("connection").hidden = true; }
function lost() {
  $("connection").textContent = "The connection is lost: what is shown is old. The worker may have ended, or the network is away; this page tries again by itself.";
  $("connection").hidden = false;
}
setInterval(() => { if (heard && Date.now() - heard > 25000) lost(); }, 5000);

// ---- orders ------------------------------------------------------------------------------------

async function order(name, told, more = {}) {
  try {
    await ask("/api/order", { order: name, ...more });
    say($("ordered"), told);
  } catch (error) { say($("ordered"), error.message, true); }
}
function until(choice) {
  if (!choice) return {};
  if (choice !== "tomorrow") return { until: Math.round(Date.now() / 1000) + Number(choice), is_span: true };
  const day = new Date();
  day.setHours(24, 0, 0, 0);
  return { until: Math.round(day.getTime() / 1000) };
}
$("pause").onclick = () => order("pause", "It pauses; jobs in hand are finished first.", until($("pause-for").value));
$("resume").onclick = () => order("serve", "It serves again.");
async function restart() {
  if (await sure("Restart the worker?", "It finishes the jobs in hand, then begins anew with what the settings say by then. This page is away meanwhile, and comes back by itself.", "Restart"))
    order("restart", "It finishes the jobs in hand, then begins anew.");
}
$("restart").onclick = restart;
$("drain").onclick = async () => {
  if (await sure("Drain the worker?", "It finishes the jobs in hand, then it ends. This page then has a button that starts it again.", "Drain"))
    order("drain", "It finishes the jobs in hand, then it ends.");
};
$("stop").onclick = async () => {
  if (await sure("Stop the worker?", "Jobs that can't be finished soon are given back. This page then has a button that starts it again.", "Stop"))
    order("stop", "It stops.");
};
$("logout").onclick = async () => { await ask("/logout", {}); location.replace("/login"); };

// ---- over time ---------------------------------------------------------------------------------

async function loadHistory() {
  let hours;
  try { ({ hours } = await ask(`/api/history?hours=${span}`)); }
  catch (error) { return $("charts").replaceChildren(make("p", { class: "bad-text" }, error.message)); }
  const groups = grouped(spread(hours, span)), whole = (text) => `${text} in all; point at a bar for its figures`;
  const known = (group, value) => group.every((hour) => hour.off) ? null : value;
  const up = (group) => sum(group, "up_seconds"), busy = sum(hours, "busy_seconds"), work = sum(hours, "megapixelsteps");
  $("charts").replaceChildren(
    chart("Kudos", "kudos", groups, (group) => known(group, sum(group, "kudos")), whole(`${round(sum(hours, "kudos"))} kudos`)),
    ...["images", "forms", "texts"].filter((kind) => kind === "images" || sum(hours, kind)).map((kind) =>
      chart(kind[0].toUpperCase() + kind.slice(1), kind, groups, (group) => known(group, sum(group, kind)), whole(`${sum(hours, kind)} ${kind}`))),
    chart("Busy", "% of the time", groups, (group) => known(group, up(group) ? Math.min(100, 100 * sum(group, "busy_seconds") / up(group)) : 0),
      whole(up(hours) ? `${round(Math.min(100, 100 * busy / up(hours)))} % of the time that it ran` : "0 %")),
    chart("Seconds a megapixelstep", "s", groups, (group) => known(group, sum(group, "megapixelsteps") ? sum(group, "busy_seconds") / sum(group, "megapixelsteps") : 0),
      work ? `${round(busy / work)} s for a million pixels and one step; less is faster` : "Nothing was made."),
  );
  const faults = new Map();
  for (const hour of hours) for (const [reason, count] of Object.entries(hour.faults)) faults.set(reason, (faults.get(reason) ?? 0) + count);
  const rows = [...faults].sort((a, b) => b[1] - a[1]).map(([reason, count]) => make("tr", {}, make("td", {}, reason), make("td", { class: "number" }, String(count))));
  $("faults").replaceChildren(rows.length ? make("table", {}, make("tbody", {}, ...rows)) : make("p", {}, "None."));
}
$("spans").onclick = (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  span = Number(button.dataset.hours);
  for (const each of $("spans").children) each.setAttribute("aria-pressed", String(each === button));
  loadHistory();
};

// ---- the horde ---------------------------------------------------------------------

async function loadHorde() {
  if (!$("horde-body").children.length) $("horde-body").replaceChildren(make("p", {}, "Asking the horde …"));
  try { showHorde(await ask("/api/horde")); }
  catch (error) { $("horde-body").replaceChildren(make("p", { class: "bad-text" }, error.message)); }
}

// ---- settings ----------------------------------------------------------------------------------

const edited = new Map();
const SAVED = { now: "counts now", "next job": "counts from the next job on", restart: "counts after a restart" };
const COUNTS = { now: "counts at once", "next job": "counts from the next job on", restart: "needs a restart" };
async function loadSettings() {
  if (edited.size) return;  // what somebody is writing is not taken away
  try { keys = await ask("/api/settings"); }
  catch (error) { return say($("saved"), error.message, true); }
  $("keys").replaceChildren(...keys.keys.map(keyRow));
  loadExtras();
  showKeys();
}
function keyRow(key) {
  const id = `key-${key.key}`, field = fieldOf(key, id);
  const fixed = key.in_file ? "It is changed in the file alone, for safety." : key.variable ? `The variable ${key.variable} sets it.` : key.kind === "table" ? "It is changed in the file." : "";
  field.disabled = Boolean(fixed);
  field.setAttribute("aria-describedby", `${id}-words`);
  const original = read(key, field), row = make("div", { class: "key" });
  field.addEventListener("input", () => {
    const value = read(key, field), isNew = JSON.stringify(value) !== JSON.stringify(original);
    row.classList.toggle("changed", isNew);
    if (isNew) edited.set(key.key, value); else edited.delete(key.key);
    $("save").disabled = !edited.size;
  });
  const byDefault = key.is_required ? "required" : key.default === null ? "not set by default" : `default: ${usual(key.default)}`;
  const words = make("div", { id: `${id}-words` }, make("p", {}, key.words), make("p", {}, `Expected: ${key.expects}; ${byDefault}.`), fixed && make("p", {}, fixed));
  row.append(make("div", {}, make("label", { for: id }, key.key), " ", make("span", { class: "tag" }, COUNTS[key.needs]), words), make("div", {}, field));
  return row;
}
const usual = (value) => value === true ? "true (ticked)" : value === false ? "false (not ticked)" : value === "" || value.length === 0 ? "empty" : String(value);
function fieldOf(key, id) {
  switch (key.kind) {
    case "switch": { const field = make("input", { id, type: "checkbox" }); field.checked = key.value; return field; }
    case "choice": { const field = make("select", { id }, make("option", { value: "" }, "not set"), ...key.choices.map((each) => make("option", { value: each }, each))); field.value = key.value ?? ""; return field; }
    case "list": { const field = make("textarea", { id, rows: 3, placeholder: "one entry a line" }); field.value = (key.value ?? []).join("\n"); return field; }
    case "secret": return make("input", { id, type: "password", autocomplete: "new-password", placeholder: key.is_set ? "set; not shown" : "not set" });
    case "number": { const field = make("input", { id, type: "number", step: 1 }); field.value = key.value ?? ""; return field; }
    default: { const field = make("input", { id, type: "text", spellcheck: "false" }); field.value = key.value ?? ""; return field; }
  }
}
function read(key, field) {
  if (key.kind === "switch") return field.checked;
  if (key.kind === "list") return field.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (key.kind === "number" && /^-?\d+$/.test(field.value)) return Number(field.value);
  return field.value;
}
function showKeys() {
  const wanted = $("key-search").value.toLowerCase();
  for (const row of $("keys").children) row.hidden = !row.textContent.toLowerCase().includes(wanted);
}
let installed = 0;
async function loadExtras() {
  try { showExtras($("extras"), (await ask("/api/extras")).extras, install); }
  catch (error) { say($("installing"), error.message, true); }
}
async function install(name) {
  try { await ask("/api/extras/install", { name }); $("extras").replaceChildren(); }
  catch (error) { say($("installing"), error.message, true); }
}
function followInstalling(progress) {
  if (progress.name) showInstalling($("installing"), progress);
  else if (progress.ended !== installed) { say($("installing"), "The installation has ended. What was installed is used after a restart."); loadExtras(); }
  installed = progress.ended;
}
function showWaiting(names) {
  const told = names.length ? `Saved, and waiting for a restart: ${names.join(", ")}. ` : "";
  if ($("waiting").dataset.told === told) return;
  $("waiting").dataset.told = told;
  const button = make("button", { type: "button" }, "Restart now");
  button.onclick = restart;
  $("waiting").replaceChildren(...(told ? [told, button] : []));
}
$("key-search").oninput = showKeys;
$("keys").onsubmit = (event) => { event.preventDefault(); save(); };
$("save").onclick = save;
async function save() {
  if (!edited.size) return;
  try {
    const counts = await ask("/api/settings", { version: keys.version, changes: Object.fromEntries(edited) });
    edited.clear();
    $("save").disabled = true;
    await loadSettings();
    say($("saved"), ["Saved.", ...Object.entries(counts).filter(([, names]) => names.length).map(([when, names]) => `${names.join(", ")}: ${SAVED[when]}.`)].join(" "));
    $("saved").className = "good-text";
  } catch (error) { $("saved").className = "bad-text"; say($("saved"), error.message, true); }
}

// ---- log ---------------------------------------------------------------------------------------

async function loadLog() {
  try { ({ lines } = await ask("/api/log")); } catch (error) { return say($("copied"), error.message, true); }
  showLines();
}
const RANK = { INFO: 0, WARNING: 1, ERROR: 2, CRITICAL: 2 };
function wantedLines() {
  const level = Number($("level").value), words = $("log-search").value.toLowerCase();
  return lines.filter((line) => (RANK[line.level] ?? 0) >= level && line.text.toLowerCase().includes(words));
}
const lineText = (line) => `${new Date(line.at * 1000).toLocaleString()} ${line.level} ${line.text}`;
function showLines() {
  const list = $("lines"), isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.replaceChildren(...wantedLines().map((line) => make("li", { class: line.level }, lineText(line))));
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}
$("level").onchange = $("log-search").oninput = showLines;
$("copy").onclick = async () => {
  const text = wantedLines().map(lineText).join("\n");
  try { await navigator.clipboard.writeText(text); }
  catch {  // without TLS a browser has no clipboard for others than this machine
    const area = make("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say($("copied"), `${wantedLines().length} lines are copied.`);
};

open();
connect();
