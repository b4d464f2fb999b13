// The form of a worker that has no configuration yet; the same questions as `setup` in a terminal.
import { $, ask, duration, make, showExtras, showInstalling, size, untilServed } from "./views.js";

const MOST_ROWS = 15;
let machine = null, asks = [];

function say(text) { $("told").textContent = text; }

async function begin() {
  const told = await ask("/api/setup");
  asks = told.asks;
  $("register").href = told.register;
  for (const key of ["api_key", "dreamer_name"]) if (!asks.includes(key)) {
    const field = $(key);
    field.disabled = true;
    field.required = false;
    field.placeholder = "set by the environment";
  }
  $("purposes").replaceChildren(...told.purposes.map(({ name, words }, index) => {
    const input = make("input", { type: "radio", name: "purpose", value: name });
    input.checked = index === 0;
    return make("label", { class: "line" }, input, " ", make("span", {}, words[0].toUpperCase() + words.slice(1)));
  }));
  await loadExtras();
  machine = await ask("/api/setup/machine");
  $("machine").replaceChildren(...machine.lines.flatMap(([name, figures]) => [make("dt", {}, name), make("dd", {}, figures)]));
  $("notes").replaceChildren(...machine.notes.map((note) => make("p", {}, `${note[0].toUpperCase()}${note.slice(1)}`)));
  showModels();
  $("save").disabled = false;
}

// What has to be installed before anything is served, and how far that is.
async function loadExtras() {
  const { extras, installing } = await ask("/api/setup/extras");
  showInstalling($("installing"), installing);
  showExtras($("extras"), installing.name ? [] : extras, async (name) => {
    try { await ask("/api/setup/extras", { name }); } catch (error) { return say(error.message); }
    loadExtras();
  });
  if (installing.name) setTimeout(loadExtras, 1500);
}

function time(bytes) { return machine.bytes_per_second ? `, about ${duration(Math.max(60, bytes / machine.bytes_per_second))}` : ""; }

function showModels() {
  const fitting = machine.models.filter((row) => !row.problem), others = machine.models.filter((row) => row.problem);
  $("models-words").textContent = fitting.length
    ? "Those that many ask for and that fit this machine come first. What a picture earns is the horde's price for one of the usual size; the speed of the card decides how many that makes an hour."
    : "There is no list of models that fit: write the names of yours.";
  $("models-list").hidden = !fitting.length;
  $("models-rows").replaceChildren(...fitting.slice(0, MOST_ROWS).map((row) => {
    const box = make("input", { type: "checkbox", "aria-label": row.name, value: row.name });
    box.checked = row.is_proposed;
    const download = row.is_here ? "is here" : row.download_bytes ? `${size(row.download_bytes)}${time(row.download_bytes)}` : "?";
    return make("tr", {}, make("td", {}, box), make("td", {}, row.name, make("small", {}, row.family)), make("td", { class: "number" }, download),
      make("td", { class: "number" }, `${Math.round(row.kudos)} kudos`, make("small", {}, `${row.side}x${row.side}, ${row.steps} steps`)),
      make("td", { class: "number" }, row.pictures == null ? "?" : row.pictures.toLocaleString()));
  }));
  $("unfit").hidden = !others.length;
  $("unfit-rows").replaceChildren(...others.slice(0, 50).map((row) => make("li", {}, `${row.name}: ${row.problem}`)));
  showTotal();
}

function chosen() {
  const boxes = [...$("models-rows").querySelectorAll("input:checked")].map((box) => box.value);
  return [...new Set([...boxes, ...$("others").value.split(",").map((name) => name.trim()).filter(Boolean)])];
}

function showTotal() {
  const names = chosen(), rows = machine.models.filter((row) => names.includes(row.name));
  const bytes = rows.reduce((sum, row) => sum + row.download_bytes, 0);
  $("total").textContent = names.length
    ? `${names.length} chosen${bytes ? `: ${size(bytes)} to download${time(bytes)}` : ""}. The disk has ${size(machine.free_bytes)} free.`
    : "Choose one at least.";
}
$("setup").addEventListener("input", () => machine && showTotal());

$("setup").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("");
  $("save").disabled = true;
  try {
    const { notes } = await ask("/api/setup", {
      api_key: $("api_key").value, dreamer_name: $("dreamer_name").value, nsfw: $("nsfw").checked, models: chosen(),
      purpose: document.querySelector("input[name=purpose]:checked").value,
    });
    $("setup").hidden = true;
    $("started").hidden = false;
    $("started-title").focus();
    $("started-notes").textContent = notes.join("\n");
    untilServed("/page.js");
  } catch (error) {
    say(error.message);
    $("save").disabled = false;
    $("save").focus();
  }
});

begin().catch((error) => say(error.message));
