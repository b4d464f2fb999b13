// A worker that serves nothing for now: why, and the button that changes it.
import { $, ask, showExtras, showInstalling, untilServed } from "./views.js";

let shown = "";

async function look() {
  let told;
  try { told = await ask("/api/waiting"); } catch { return leave(); }  // it goes on: another page comes
  showInstalling($("installing"), told.installing);
  const extras = told.installing.name ? [] : told.extras, now = JSON.stringify([told.title, told.told, extras]);
  if (now !== shown) {  // or a button would lose the focus
    shown = now;
    $("title").textContent = told.title;
    $("reason").textContent = `${told.told[0].toUpperCase()}${told.told.slice(1)}.`;
    $("start").hidden = !told.can_start;
    showExtras($("extras"), extras, async (name) => {
      try { await ask("/api/waiting/install", { name }); } catch (error) { $("told").textContent = error.message; }
    });
  }
  setTimeout(look, 1500);
}
function leave() {
  $("start").disabled = true;
  untilServed("/charts.js");
}
$("start").onclick = async () => {
  try { await ask("/api/waiting/start", {}); } catch (error) { $("told").textContent = error.message; }
};

look();
