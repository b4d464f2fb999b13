// Bars of one figure by hour; the same figures are in a table for those who don't see them.
import { make, round } from "./views.js";

const SVG = "http://www.w3.org/2000/svg";
const svg = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

export function spread(hours, last, now = Date.now() / 1000) {
  const end = Math.floor(now / 3600), known = new Map(hours.map((hour) => [hour.hour, hour]));
  return Array.from({ length: last }, (_, place) => known.get(end - last + 1 + place) ?? { hour: end - last + 1 + place, off: true });
}

export function grouped(slots, most = 48) {
  const size = Math.ceil(slots.length / most), groups = [];
  for (let at = 0; at < slots.length; at += size) groups.push(slots.slice(at, at + size));
  return groups;
}

export const sum = (group, name) => group.reduce((total, hour) => total + (hour[name] ?? 0), 0);

export function chart(title, unit, groups, figure, whole) {
  const values = groups.map(figure), most = Math.max(...values.map((value) => value ?? 0), 1e-9);
  const picture = svg("svg", { class: "chart", viewBox: "0 0 480 120", preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(svg("line", { x1: 0, x2: 480, y1: 119.5, y2: 119.5 }));
  const told = make("p", { class: "chart-told" }, whole);
  const width = 480 / groups.length;
  const words = (place) => `${when(groups[place])}: ${values[place] === null ? "the worker was off" : `${round(values[place])} ${unit}`}`;
  groups.forEach((group, place) => {
    const height = 112 * (values[place] ?? 0) / most, bar = svg("g", {});
    bar.append(
      svg("rect", { x: place * width + width * .1, y: 119 - height, width: width * .8, height, rx: 1 }),
      svg("rect", { class: "over", x: place * width, y: 0, width, height: 120 }),
    );
    bar.addEventListener("pointerenter", () => { told.textContent = words(place); });
    bar.addEventListener("pointerleave", () => { told.textContent = whole; });
    picture.append(bar);
  });
  const rows = groups.map((group, place) => make("tr", {}, make("td", {}, when(group)), make("td", {}, values[place] === null ? "off" : `${round(values[place])} ${unit}`)));
  const table = make("table", { class: "hidden" }, make("caption", {}, title), make("tbody", {}, ...rows));
  return make("article", { class: "card" }, make("h3", {}, title), picture, told, table);
}

const when = (group) => {
  const form = { weekday: "short", hour: "2-digit", minute: "2-digit" };
  const first = new Date(group[0].hour * 3600e3), end = new Date((group.at(-1).hour + 1) * 3600e3);
  return `${first.toLocaleString([], { ...form, day: "numeric", month: "short" })} – ${end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
};
