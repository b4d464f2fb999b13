// Small helpers that every view uses, and what the view "Now" shows. Strangers' words become text only.
export const $ = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...content) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...content.filter((each) => each != null));
  return node;
}

export function size(bytes) {
  for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"]])
    if (bytes >= unit) return `${(bytes / unit).toFixed(bytes / unit < 100 ? 1 : 0)} ${name}`;
  return `${Math.round(bytes / 1000)} kB`;
}

export function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]], told = [];
  let left = Math.max(0, Math.round(seconds));
  for (const [unit, name] of parts) {
    if (left >= unit) told.push(`${Math.floor(left / unit)} ${name}`);
    left %= unit;
  }
  return told.slice(0, 2).join(" ") || "0 s";
}

export const round = (value) => value >= 100 ? Math.round(value).toLocaleString() : Number(value.toPrecision(3)).toLocaleString();

// A row of a table that becomes a card on a phone; each cell is its content, its column's name, and its class.
export const cells = (...columns) => make("tr", { role: "row" }, ...columns.map(([content, label, style], place) =>
  make("td", { role: "cell", "data-label": label, class: style ?? (place && typeof content === "string" ? "number" : "") }, ...[content].flat())));

export async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (answer.status === 401) { location.replace("/login"); throw new Error("log in first"); }
  const told = await answer.json();
  if (!answer.ok) { const error = new Error(told.problems.join("\n")); error.status = answer.status; throw error; }
  return told;
}

export function say(node, text, bad = false) { node.textContent = text; node.classList.toggle("bad", bad); }

export function sure(title, text, yes) {
  const dialog = $("sure");
  $("sure-title").textContent = title;
  $("sure-text").textContent = text;
  $("sure-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  $("sure-no").focus();
  return new Promise((resolve) => {
    $("sure-yes").onclick = () => dialog.close("yes");
    $("sure-no").onclick = () => dialog.close("");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

const TONES = { serving: "good", "in maintenance": "warn", pausing: "warn", paused: "warn", draining: "warn", ended: "bad" };
const STAGES = ["popped", "reading", "waiting", "running", "encoding", "judging", "delivering"];

function definitions(target, pairs) {
  target.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

export function bar(share, reserve = 0) {
  const node = make("div", { class: "bar" }), fill = make("i");
  fill.style.width = `${Math.min(100, 100 * share)}%`;
  node.append(fill);
  if (reserve) { const left = make("b"); left.style.width = `${100 * reserve}%`; node.append(left); }
  return node;
}

function meter(name, room) {
  const used = room.total_bytes - room.free_bytes, total = room.total_bytes || 1;
  const words = make("span", {}, make("span", {}, name), make("span", {}, `${size(used)} of ${size(room.total_bytes)}`));
  const left = make("small", {}, `${size(room.free_bytes)} free; ${size(room.reserve_bytes)} is left to other programs`);
  return make("div", { class: "meter" }, words, bar(used / total, room.reserve_bytes / total), left);
}

// What can be added to the installation: a card each, with a button where it can be installed from here.
export function showExtras(target, extras, install) {
  target.replaceChildren(...extras.filter((each) => !each.is_here).map((each) => {
    const button = make("button", { type: "button", "aria-label": `Install ${each.name}` }, "Install it");
    button.onclick = () => install(each.name);
    return make("article", { class: "card told" }, make("h3", {}, `${each.name} is not installed`), make("p", {}, each.words),
      each.problem && make("p", { class: "bad-text" }, `It was not installed: ${each.problem}`),
      each.by_hand ? make("p", {}, "In a terminal: ", make("code", {}, each.by_hand)) : button);
  }));
}
export function showInstalling(target, progress) {
  say(target, progress.name ? `Installing ${progress.name}: ${progress.line}` : "");
}

// Goes to the worker's page once there is one: it is told by a file that is only there.
const PATIENCE_MS = 120000;
export async function untilServed(file, since = Date.now()) {
  try {
    const answer = await fetch(file, { cache: "no-store" });
    if (answer.ok || answer.status === 401) return location.replace("/");
  } catch {
    $("started-told").textContent = Date.now() - since < PATIENCE_MS
      ? "The worker starts. This page goes on by itself as soon as it answers."
      : "The worker does not answer. The window in which it was started says why; it may have ended.";
  }
  setTimeout(() => untilServed(file, since), 1500);
}

export function showNow(now) {
  const { overview, machine } = now;
  $("worker").textContent = now.worker;
  document.title = `${overview.doing} – Dreamer`;
  if ($("sentence").textContent !== now.sentence) $("sentence").textContent = now.sentence;
  $("state").className = `state ${overview.why && overview.doing === "serving" ? "bad" : TONES[overview.doing] ?? ""}`;
  $("resume").disabled = !["paused", "pausing"].includes(overview.doing);
  $("pause").disabled = ["draining", "ended"].includes(overview.doing);
  $("logout").hidden = !now.has_password;
  showJob(overview.jobs.find((job) => job.stage === "running"));
  const rows = STAGES.map((stage) => [stage, overview.jobs.filter((job) => job.stage === stage).length]).filter(([, count]) => count);
  const list = make("dl");
  definitions(list, rows);
  $("jobs").replaceChildren(rows.length ? list : make("p", {}, "None."));
  $("others").hidden = !overview.others.length;
  definitions($("others-list"), overview.others.map((other) => [`${other.kind}s`, [`${other.in_hand} in hand`, `${other.done} done`,
    other.failed && `${other.failed} failed`, `${other.kudos.toFixed(2)} kudos`, `as ${other.name}`, other.why].filter(Boolean).join(", ")]));
  const hours = overview.began ? (overview.at - overview.began) / 3600 : 0;
  const hourly = (value) => hours > 1 / 60 ? ` (${(value / hours).toFixed(1)} an hour)` : "";
  definitions($("life"), [
    ["images", `${overview.images}${hourly(overview.images)}`], ["kudos", `${overview.kudos.toFixed(2)}${hourly(overview.kudos)}`],
    ["failed", overview.failed], ...(overview.lost_pops ? [["answers lost on their way", overview.lost_pops]] : []),
    ["up", overview.began ? duration(overview.at - overview.began) : "–"], ["models offered", overview.models.length],
  ]);
  $("memory").replaceChildren(meter("Main memory", machine.memory), ...(machine.disk ? [meter("Disk of the models", machine.disk)] : []));
  showCards(overview.devices, machine.cards);
  showPictures(now.pictures);
  $("messages").hidden = !overview.messages.length;
  $("messages-list").replaceChildren(...overview.messages.map((each) => make("p", {}, each)));
}

function showPictures(pictures) {
  $("pictures").hidden = !pictures;
  const numbers = (pictures ?? []).map((each) => each.number).join();
  if (numbers === $("picture-list").dataset.numbers) return;  // those that are there are not fetched again
  $("picture-list").dataset.numbers = numbers;
  $("picture-list").replaceChildren(...(pictures ?? []).map((each) => {
    const at = new Date(each.at * 1000).toLocaleTimeString();
    return make("li", {}, make("img", { src: `/pictures/${each.number}`, alt: each.is_nsfw ? `Made at ${at}; blurred, since it was found not safe for work` : `Made at ${at}` }),
      make("small", {}, each.is_nsfw ? `${at}, blurred` : at));
  }));
}

function showJob(job) {
  if (!job) return $("job").replaceChildren(make("p", {}, "None."));
  const share = job.steps ? job.step / job.steps : 0;
  const facts = [job.width && `${job.width} × ${job.height}`, job.images > 1 && `${job.images} images`,
    job.steps ? `step ${job.step} of ${job.steps}` : "preparing",
    job.seconds_left != null && `about ${duration(job.seconds_left)} left`, job.kudos && `about ${job.kudos} kudos`];
  const progress = bar(share);
  progress.setAttribute("role", "progressbar");
  progress.setAttribute("aria-label", "Steps of the job at work");
  progress.setAttribute("aria-valuenow", Math.round(100 * share));
  $("job").replaceChildren(make("p", { class: "big" }, job.model), make("p", {}, facts.filter(Boolean).join(" · ")), progress,
    ...(job.loras.length ? [make("p", {}, `LoRAs: ${job.loras.join(", ")}`)] : []));
}

function showCards(devices, cards) {
  const known = devices.filter((each) => each.uuid);
  const rows = known.length ? known.map((each) => [each, cards.find((card) => card.uuid === each.uuid)]) : cards.map((card) => [null, card]);
  if (!rows.length) return $("device-list").replaceChildren(make("article", { class: "card" }, make("h3", {}, "The card"), make("p", {}, "No NVIDIA card answers; the processor computes.")));
  $("device-list").replaceChildren(...rows.map(([device, card]) => showCard(rows.length > 1 ? device?.name ?? card.name : "The card", device, card)));
}

function showCard(title, device, card) {
  const list = make("dl"), known = (value, unit) => value == null ? "not told" : `${Math.round(value)} ${unit}`;
  definitions(list, [...(device ? [["now", `${device.doing}${device.model ? ` on ${device.model}` : ""}`]] : []),
    ...(card ? [["load", known(card.load_percent, "%")], ["temperature", known(card.celsius, "°C")], ["power", known(card.watts, "W")]] : [])]);
  return make("article", { class: "card" }, make("h3", {}, title), device?.why && make("p", { class: "bad-text" }, device.why),
    ...(card ? [make("p", {}, card.name), meter("Memory", card.memory)] : [make("p", {}, "Its driver does not answer.")]), list);
}

function takeRelease() {
  const button = make("button", { type: "button" }, "Take the new version"), answer = make("p", { role: "status" });
  button.onclick = async () => {
    if (!await sure("Take the new version?", "It is fetched and looked at first. Then the worker finishes the jobs in hand, installs it, and starts again; if it does not work, the old one comes back. This page is away meanwhile, and comes back by itself.", "Take it")) return;
    button.disabled = true;
    say(answer, "Fetching it …");
    try { await ask("/api/update", {}); say(answer, "It is fetched, and installed once the jobs in hand are finished."); }
    catch (error) { button.disabled = false; say(answer, error.message, true); }
  };
  return make("div", {}, button, answer);
}

export function showHorde(told) {
  const parts = [];
  const part = (title, pairs, ...more) => {
    const list = make("dl");
    definitions(list, pairs);
    parts.push(make("article", { class: "card" }, make("h3", {}, title), list, ...more));
  };
  const yes = (value) => value == null ? "not told" : value ? "yes" : "no";
  if (told.problem) parts.push(make("article", { class: "card wide" }, make("p", { class: "bad-text" }, `The horde does not say: ${told.problem}`)));
  if (told.release) parts.push(make("article", { class: "card wide told" }, make("h3", {}, "A newer Dreamer"),
    make("p", {}, `Version ${told.release.version} is there; this is ${told.release.ours}. `, make("a", { href: told.release.link, rel: "noreferrer", target: "_blank" }, "What is new")),
    told.release.can_take && takeRelease(),
    make("p", {}, "On the page Settings, auto_update: drain has a clone take new versions by itself. By hand: drain the worker in a terminal, then type ", make("code", {}, told.release.command), " and start it again.")));
  if (told.account) part("Your account", [["name", told.account.name], ["kudos", told.account.kudos.toLocaleString()], ["trusted", yes(told.account.is_trusted)]]);
  if (told.worker) part("Its record of this worker", [
    ["online", yes(told.worker.is_online)], ["in maintenance", yes(told.worker.in_maintenance)], ["trusted", yes(told.worker.is_trusted)],
    ["online in all", told.worker.uptime_seconds == null ? "not told" : duration(told.worker.uptime_seconds)],
    ["requests done", told.worker.requests ?? "not told"], ["not completed", told.worker.uncompleted ?? "not told"],
    ["kudos", told.worker.kudos ?? "not told"], ["speed", told.worker.performance ?? "not told"], ["says", told.worker.info || "–"]]);
  else if (!told.problem) parts.push(make("article", { class: "card" }, make("p", {}, "The horde does not know this worker yet; its first request for jobs introduces it.")));
  const queues = told.queues.map((queue) => cells([queue.name], [round(queue.images), "Images that wait"], [String(queue.threads), "Threads that serve it"], [queue.images ? duration(queue.eta_seconds) : "–", "Done in about"]));
  const head = ["Model", "Images that wait", "Threads that serve it", "Done in about"].map((name, place) => make("th", { scope: "col", role: "columnheader", class: place ? "number" : "" }, name));
  parts.push(make("article", { class: "card wide" }, make("h3", {}, "What waits for this worker's models"),
    told.queue_problem ? make("p", { class: "bad-text" }, told.queue_problem)
      : queues.length ? make("div", { class: "scroll bare", tabindex: "0", role: "region", "aria-label": "Queues of this worker's models" }, make("table", { class: "stacked", role: "table" }, make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head)), make("tbody", { role: "rowgroup" }, ...queues)))
        : make("p", {}, "No model is offered at the moment.")));
  part("The offer", [["horde", told.horde_url], ["max_power", told.max_power], ["max_batch", told.max_batch]]);
  part("The reward", [["introduced as", told.agent], ["share", `${told.share_percent} %`]], make("p", { class: "note" }, `${told.rule[0].toUpperCase()}${told.rule.slice(1)}.`),
    ...(told.lost ? [make("p", { class: "warn-text" }, `${told.lost[0].toUpperCase()}${told.lost.slice(1)}. ${told.remedy}`)] : []));
  const kinds = told.kinds.flatMap((kind) => [make("dt", {}, kind.flag),
    make("dd", { class: kind.is_offered ? "good-text" : "" }, kind.is_offered ? "offered" : kind.missing || "not wanted")]);
  parts.push(make("article", { class: "card wide" }, make("h3", {}, "Kinds of jobs"), make("dl", { class: "kinds" }, ...kinds)));
  $("horde-body").replaceChildren(...parts);
}
