// Sorts and filters the list of pictures, and enlarges those that are shown large. Without it everything is there too,
// the list in the order in which it was written.
"use strict";
for (const button of document.querySelectorAll(".large button")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const large = button.closest(".large").classList.toggle("larger");
    button.setAttribute("aria-pressed", String(large));
  });
}
const form = document.querySelector("form.choose");
const list = document.querySelector("ol.all");
const said = document.querySelector("#said");
const items = Array.from(list.children, (element, place) => ({
  element,
  place,
  name: element.dataset.name,
  low: element.dataset.name.toLowerCase(),
  shown: element.querySelector("b"),
  scores: new Map([["", element.dataset.score], ...(element.dataset.classes || "").split(" ").filter(Boolean)
    .map((pair) => pair.split(":"))]),
}));

function arrange() {
  const { of, order, part, least, most } = form.elements;
  const wanted = part.value.trim().toLowerCase();
  const from = least.value === "" ? -Infinity : Number(least.value);
  const to = most.value === "" ? Infinity : Number(most.value);
  const scored = items.map((item) => {
    const text = item.scores.get(of.value);
    const score = text === undefined || text === "" ? NaN : Number(text);
    const between = Number.isNaN(score) ? least.value === "" && most.value === "" : score >= from && score <= to;
    const there = of.value === "" || text !== undefined;
    return { item, score, text, shown: there && between && item.low.includes(wanted) };
  });
  const up = order.value === "best" ? -1 : 1;
  scored.sort((a, b) => {
    if (order.value === "name") return a.item.name.localeCompare(b.item.name, undefined, { numeric: true });
    if (Number.isNaN(a.score) || Number.isNaN(b.score)) {
      return Number.isNaN(a.score) - Number.isNaN(b.score) || a.item.place - b.item.place;
    }
    return up * (a.score - b.score) || a.item.place - b.item.place;
  });
  for (const { item, text, shown } of scored) {
    item.element.hidden = !shown;
    item.shown.textContent = text ? text : "no score";
    list.append(item.element);
  }
  const count = scored.filter((one) => one.shown).length;
  said.textContent = `${count} of ${items.length} pictures shown`;
}

form.addEventListener("input", arrange);
form.addEventListener("reset", () => setTimeout(arrange));
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
