"use strict";
(() => {
  const root = document.documentElement;
  const panels = JSON.parse(document.getElementById("panels").textContent);
  const drawn = new Set();
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const theme = () => (root.dataset.theme === "dark" ? "dark" : "light");

  // What depends on the theme: the colours of text and grid, and of plain branches.
  const themed = () => ({
    "font.color": css("--ink"), "font.family": css("--font"),
    "xaxis.gridcolor": css("--grid"), "yaxis.gridcolor": css("--grid"),
    "xaxis.linecolor": css("--line"), "yaxis.linecolor": css("--line"),
    "hoverlabel.bgcolor": css("--card"), "hoverlabel.bordercolor": css("--line"), "hoverlabel.font.color": css("--ink"),
  });
  function recolour(panel) {
    panel.data.forEach((trace) => {
      if (trace.meta && trace.meta.textcolour) trace.line.color = css("--soft");
    });
  }
  function put(target, path, value) {
    const keys = path.split(".");
    const last = keys.pop();
    const inner = keys.reduce((at, key) => (at[key] = at[key] || {}), target);
    inner[last] = value;
  }

  function draw(div) {
    if (drawn.has(div)) return;
    drawn.add(div);
    const panel = panels[Number(div.dataset.panel)];
    recolour(panel);
    Object.entries(themed()).forEach(([path, value]) => put(panel.layout, path, value));
    const config = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false, doubleClick: "reset" };
    Plotly.newPlot(div, panel.data, panel.layout, config).then(() => { div.dataset.drawn = "true"; applyHidden(div); });
  }
  const plots = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver(
    (entries) => entries.forEach((entry) => { if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); } }),
    { rootMargin: "700px 0px" },
  );
  plots.forEach((div) => {
    div.style.minHeight = `${panels[Number(div.dataset.panel)].layout.height}px`;
    watcher.observe(div);
  });
  window.addEventListener("beforeprint", () => plots.forEach(draw));

  // ---- theme ----
  const button = document.getElementById("theme");
  function label() { button.textContent = theme() === "dark" ? "Light theme" : "Dark theme"; }
  function remember(value) { try { localStorage.setItem("solo-theme", value); } catch { /* private windows */ } }
  button.addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    remember(root.dataset.theme);
    label();
    drawn.forEach((div) => {
      const panel = panels[Number(div.dataset.panel)];
      recolour(panel);
      Object.entries(themed()).forEach(([path, value]) => put(panel.layout, path, value));
      Plotly.react(div, panel.data, panel.layout);
    });
  });
  label();

  // ---- legends: a chip switches everything of its name on or off, in all panels of its figure ----
  const hidden = (article) => new Set([...article.querySelectorAll('.chips button[aria-pressed="false"]')].map((chip) => chip.dataset.name));
  function applyHidden(div) {
    const off = hidden(div.closest("article"));
    const panel = panels[Number(div.dataset.panel)];
    let changed = false;
    panel.data.forEach((trace) => {
      const visible = !(trace.legendgroup && off.has(trace.legendgroup));
      if ((trace.visible !== false) !== visible) { trace.visible = visible; changed = true; }
    });
    if (changed) Plotly.react(div, panel.data, panel.layout);
  }
  document.querySelectorAll(".chips button").forEach((chip) => chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") === "false" ? "true" : "false");
    chip.closest("article").querySelectorAll('.plot[data-drawn="true"]').forEach(applyHidden);
  }));

  // ---- tables that sort ----
  document.querySelectorAll("table").forEach((table) => {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "descending" || (head.classList.contains("text") && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");  // unknown values last, both ways
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : Number(x) - Number(y);
        return down ? order : -order;
      });
      body.append(...rows);
    }));
  });
  root.dataset.ready = "true";
})();
