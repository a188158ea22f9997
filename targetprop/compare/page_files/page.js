const charts = JSON.parse(document.getElementById("charts").textContent);
const root = document.documentElement;
const views = new Map(); // id of a chart -> its Vega view

const isDark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function config() {
  const [ink, faint, line] = ["--ink", "--faint", "--line"].map(colour);
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    legend: { disable: true }, // the boxes above the charts are one
    view: { stroke: line },
    axis: { gridColor: line, domainColor: faint, tickColor: faint, labelColor: faint, titleColor: ink, labelFontSize: 12 },
    header: { labelColor: ink, labelFontSize: 13 },
  };
}

function fitted(chart, width) {
  const spec = structuredClone(chart.spec);
  if (chart.alone) {
    spec.width = "container";
    spec.autosize = { type: "fit-x", contains: "padding" };
    spec.height = width < 480 ? 260 : 320;
  } else {
    const views = spec.facet.sort.length;
    spec.columns = Math.max(1, Math.min(views, Math.floor(width / 260)));
    spec.spec.width = Math.max(140, Math.min(420, Math.floor((width - 60) / spec.columns) - 45));
  }
  spec.config = { ...spec.config, ...config() };
  return spec;
}

const picked = (board) =>
  [...document.querySelectorAll(`.rules[data-board="${board}"] input:checked`)].map((box) => box.value);

async function draw(place) {
  const chart = charts[place.id];
  views.get(place.id)?.finalize();
  const result = await vegaEmbed(place, fitted(chart, place.clientWidth), {
    mode: "vega-lite",
    renderer: "svg",
    ast: true, // no eval, which the page's own policy forbids
    theme: undefined,
    tooltip: { theme: isDark() ? "dark" : "light" },
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: place.id,
  });
  views.set(place.id, result);
  await result.view.signal("picked", picked(place.dataset.board)).runAsync();
}

const places = [...document.querySelectorAll(".chart")];
const drawAll = () => Promise.all(places.map(draw));

function nameTheme() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  nameTheme();
  drawAll();
});

let width = innerWidth;
let waiting;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});

for (const rules of document.querySelectorAll(".rules")) {
  const show = () =>
    places
      .filter((place) => place.dataset.board === rules.dataset.board)
      .forEach((place) => views.get(place.id)?.view.signal("picked", picked(rules.dataset.board)).runAsync());
  const set = (value) => {
    rules.querySelectorAll("input").forEach((box) => (box.checked = value));
    show();
  };
  rules.addEventListener("change", show);
  rules.querySelector(".all").addEventListener("click", () => set(true));
  rules.querySelector(".none").addEventListener("click", () => set(false));
}

for (const button of document.querySelectorAll(".sort")) {
  const heading = button.closest("th");
  const tip = heading.querySelector(".tip");
  const open = () => {
    tip.classList.add("open");
    const { left, bottom } = button.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${bottom + 6}px`;
  };
  const close = () => tip.classList.remove("open");
  for (const event of ["mouseenter", "focus"]) button.addEventListener(event, open);
  for (const event of ["mouseleave", "blur"]) button.addEventListener(event, close);
  button.addEventListener("keydown", (event) => event.key === "Escape" && close());
  button.addEventListener("click", () => {
    const falling = heading.getAttribute("aria-sort") !== "descending";
    const body = heading.closest("table").tBodies[0];
    const value = (row) => {
      const cell = row.cells[heading.cellIndex];
      return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
    };
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x === typeof y) return typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return typeof x === "number" ? 1 : -1; // what has no number comes below
    };
    [...body.rows].sort((a, b) => (falling ? order(b, a) : order(a, b))).forEach((row) => body.append(row));
    heading.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  });
}

for (const button of document.querySelectorAll(".copy"))
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // where pages may not write: to be copied by hand
    }
  });

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(
    new Blob([document.getElementById("results").textContent], { type: "application/json" }),
  );
  link.download = "results.json";
  link.click();
});

function openNamed() {
  const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
}
addEventListener("hashchange", openNamed);
openNamed();
nameTheme();
await drawAll();
root.dataset.drawn = "true"; // for tests: everything stands
