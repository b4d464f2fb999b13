// What axe-core would ask first of what is seen on a page: names for whatever is used, one h1, no id
// twice, texts that can be read (WCAG 2.1, contrast of 4.5), nothing wider than the screen.
() => {
  const problems = [], seen = (node) => node.checkVisibility() && !node.closest(".hidden, .skip");
  for (const node of document.querySelectorAll("input, select, textarea, button, a, [role=progressbar], [tabindex='0']")) {
    const label = node.getAttribute("aria-label") || node.textContent.trim() || [...(node.labels ?? [])].map((each) => each.textContent.trim()).join(" ");
    if (seen(node) && (!label || (/INPUT|SELECT|TEXTAREA/.test(node.tagName) && !node.labels?.length && !node.getAttribute("aria-label")))) problems.push(`no name: ${node.outerHTML.slice(0, 90)}`);
  }
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`twice: ${id}`);
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((each) => each / 255).map((each) => each <= .03928 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4).reduce((sum, each, place) => sum + each * [.2126, .7152, .0722][place], 0);
  const ground = (node) => { for (; node; node = node.parentElement) { const colour = parse(getComputedStyle(node).backgroundColor); if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()) || !seen(node) || node.disabled) continue;
    const [dark, bright] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => a - b);
    if ((bright + .05) / (dark + .05) < 4.5) problems.push(`contrast ${((bright + .05) / (dark + .05)).toFixed(2)}: ${node.outerHTML.slice(0, 90)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) problems.push(`wider than the screen: ${document.documentElement.scrollWidth}`);
  return problems;
}
