// The view "Models": what is served, on disk and on its way, what the horde's list has, and the LoRAs.
import { $, ask, bar, cells, make, say, size, sure } from "./views.js";

let shelf = null, downloads = "", shown = "", drawn = new Map();

export async function loadModels() {
  try { shelf = await ask("/api/models"); }
  catch (error) { return say($("model-told"), error.message, true); }
  $("room").textContent = `${size(shelf.free_bytes)} free on the disk, of which ${size(shelf.kept_bytes)} always stay free. ${shelf.memory}`;
  if (shelf.problems.length) say($("model-told"), shelf.problems.join("\n"), true);
  showModels();
  await loadLoras();
}
function showModels() {
  if (!shelf) return;
  const wanted = $("model-search").value.toLowerCase();
  const rank = (row) => (row.is_served ? 4 : 0) + (row.is_chosen ? 2 : 0) + (row.there_bytes ? 1 : 0);
  const rows = shelf.models.filter((row) => `${row.name} ${row.family}`.toLowerCase().includes(wanted))
    .sort((a, b) => rank(b) - rank(a) || (b.pictures ?? 0) - (a.pictures ?? 0) || a.name.localeCompare(b.name));
  $("model-rows").replaceChildren(...rows.slice(0, 300).map((row) => {
    const isGoing = /^(waiting|coming|paused)/.test(drawn.get(row.name)?.kind ?? "");
    const state = isGoing ? "on its way" : row.is_served ? "served" : row.is_chosen ? `chosen, ${row.state}` : row.there_bytes ? "on disk" : "not here";
    const isOurs = row.is_chosen || row.there_bytes > 0;
    const button = row.state === "yours" || isGoing ? null : make("button", { class: "quiet", "aria-label": `${isOurs ? "Remove" : "Add"} ${row.name}` }, isOurs ? "Remove" : "Add");
    if (button) button.onclick = () => isOurs ? removeModel(row) : addModel(row);
    return cells([[row.name, make("small", {}, row.family)]], [state, "State", row.is_served ? "good-text" : ""],
      [row.size_bytes || row.there_bytes ? size(row.size_bytes || row.there_bytes) : "?", "Size"],
      [row.fit, "Fits the memory", row.fits === false ? "warn-text" : ""],
      [row.pictures == null ? "–" : row.pictures.toLocaleString(), "Pictures a month"], [button ?? "", "", "change"]);
  }));
}
$("model-search").oninput = showModels;

async function addModel(row) {
  try {
    const plan = await ask(`/api/models/plan?name=${encodeURIComponent(row.name)}`);
    if (plan.problem) return say($("model-told"), plan.problem, true);
    const left = plan.free_bytes - plan.to_come_bytes;
    if (!await sure(`Add ${row.name}?`, `${size(plan.to_come_bytes)} to download; the disk has ${size(plan.free_bytes)} free, and ${size(left)} after it. It is served as soon as it is here.`, "Download")) return;
    await ask("/api/models/add", { name: row.name });
    say($("model-told"), `${row.name} is being downloaded.`);
  } catch (error) { say($("model-told"), error.message, true); }
}
async function removeModel(row) {
  if (!await sure(`Remove ${row.name}?`, `Its files are deleted (${size(row.there_bytes)}), and it is taken out of models_to_load.`, "Remove")) return;
  try {
    const { freed_bytes, kept } = await ask("/api/models/remove", { name: row.name });
    await loadModels();
    say($("model-told"), [`${size(freed_bytes)} freed.`, ...kept].join("\n"));
  } catch (error) { say($("model-told"), error.message, true); }
}
export function showDownloads(list, served, isSeen) {
  const told = JSON.stringify([list, served]);
  if (told === downloads) return;
  downloads = told;
  const state = JSON.stringify([list.map((each) => [each.name, each.progress]), served]);
  const rows = list.map((each) => {
    const kind = `${each.progress} ${each.is_wanted}`, row = drawn.get(each.name);
    return row?.kind === kind ? row : { kind, ...download(each) };
  });
  const isNew = state !== shown;
  shown = state;
  drawn = new Map(list.map((each, place) => [each.name, rows[place]]));
  list.forEach((each, place) => rows[place].update(each));
  const nodes = rows.map((row) => row.node);
  if (nodes.some((node, place) => node !== $("downloads").children[place]) || nodes.length !== $("downloads").children.length) $("downloads").replaceChildren(...nodes);
  if (isSeen && isNew) loadModels();
}
function download({ name, progress, is_wanted }) {
  const words = make("p"), progressbar = bar(0), button = (word, act) => {
    const node = make("button", { class: "quiet", "aria-label": `${word} the download of ${name}` }, word);
    node.onclick = act;
    return node;
  };
  progressbar.setAttribute("role", "progressbar");
  progressbar.setAttribute("aria-label", `Download of ${name}`);
  const isGoing = !["over", "cancelled"].includes(progress);
  const node = make("div", { class: "download" }, make("div", {}, words, isGoing ? progressbar : null), ...(isGoing ? [
    is_wanted ? button("Pause", () => change("pause", name)) : button("Resume", () => change("resume", name)),
    button("Cancel", async () => {
      if (await sure(`Cancel the download of ${name}?`, "What has come of it is deleted, and models_to_load names it no more.", "Cancel it")) change("cancel", name);
    })] : []));
  const update = (each) => {
    const share = each.size_bytes ? Math.min(1, each.arrived_bytes / each.size_bytes) : 0;
    words.textContent = downloadWords(each, share);
    words.className = each.problem ? "bad-text" : "";
    progressbar.firstChild.style.width = `${100 * share}%`;
    progressbar.setAttribute("aria-valuenow", Math.round(100 * share));
  };
  return { node, update };
}
function downloadWords(each, share) {
  const came = `${size(each.arrived_bytes)}${each.size_bytes ? ` of ${size(each.size_bytes)}` : ""}`;
  if (each.problem) return each.progress === "waiting" ? `${each.problem}; it is tried again` : each.problem;
  const states = {
    over: "here", cancelled: "is being cancelled", paused: `paused at ${came}`, waiting: `waits for its turn; ${came}`,
    coming: each.is_wanted ? share === 1 ? "is being verified" : came : `is being paused; ${came}`,
  };
  return `${each.name}: ${states[each.progress]}`;
}
async function change(what, name) {
  try {
    await ask(`/api/models/${what}`, { name });
    say($("model-told"), { pause: `The download of ${name} is paused.`, resume: `The download of ${name} goes on.`, cancel: `The download of ${name} is cancelled.` }[what]);
    if (what === "cancel") await loadModels();
  } catch (error) { say($("model-told"), error.message, true); }
}

// ---- LoRAs -------------------------------------------------------------------------------------

async function loadLoras() {
  let told;
  try { told = await ask("/api/loras"); }
  catch (error) { return say($("lora-told"), error.message, true); }
  $("lora-room").textContent = `They take ${size(told.used_bytes)} of the ${size(told.most_bytes)} of max_lora_cache_size. Those that were not used for the longest go first, when there is no room for another.`;
  $("lora-list").hidden = !told.loras.length;
  $("lora-rows").replaceChildren(...told.loras.map((lora) => {
    const button = lora.is_yours ? null : make("button", { class: "quiet", "aria-label": `Remove ${lora.name} ${lora.version}` }, "Remove");
    if (button) button.onclick = () => removeLora(lora);
    const name = lora.link ? make("a", { href: lora.link, target: "_blank", rel: "noopener noreferrer" }, lora.name) : lora.name;
    return cells([[name, make("small", {}, lora.version)]], [lora.is_yours ? "yours" : lora.base_model || "not told", "For", ""],
      [size(lora.size_bytes), "Size"], [lora.used_at ? new Date(lora.used_at * 1000).toLocaleString() : "–", "Last used", ""], [button ?? "", "", "change"]);
  }));
}
async function removeLora(lora) {
  if (!await sure(`Remove ${lora.name}?`, `Its file is deleted (${size(lora.size_bytes)}). A job that names it later has it downloaded again.`, "Remove")) return;
  try {
    const { freed_bytes } = await ask("/api/loras/remove", { file: lora.file });
    await loadLoras();
    say($("lora-told"), `${size(freed_bytes)} freed.`);
  } catch (error) { say($("lora-told"), error.message, true); }
}
