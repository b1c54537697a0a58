"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  // Hidden and bidirectional characters as escapes, as in the rest of the page; joiners within words and emoji stay.
  const HIDDEN = /(?![\t\n]|(?<=[^\0-\x7f])[\u200c\u200d](?=[^\0-\x7f]))[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe00-\ufe0d\u{e0100}-\u{e01ef}]/gu;
  const uncover = (text) => String(text).replace(HIDDEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = uncover(text); // never innerHTML: it is a model's
    if (name) element.className = name;
    return element;
  };

  // --- light and dark ---------------------------------------------------------------------------------------
  const root = document.documentElement, theme = byId("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  const stored = (value) => { // storage is refused to pages that are opened as files in some browsers
    try { return value ? localStorage.setItem("gatehouse-theme", value) : localStorage.getItem("gatehouse-theme"); } catch { return null; }
  };
  if (stored()) root.dataset.theme = stored();
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored(root.dataset.theme); name(); });
  name();

  // --- rows -------------------------------------------------------------------------------------------------
  const browser = byId("browser");
  if (!browser) return;
  const { suites, rows } = JSON.parse(byId("data").textContent);
  const PAGE = 50, MISSING = "missing";
  const MOVES = { regressed: "regressed", improved: "improved", same: "unchanged", new: "no baseline row" };
  const text = (row, key) => row[key] ?? "";
  for (const row of rows) {
    row.shown = (row.inputs ?? []).map((pair) => pair[1]).join(" ");
    const before = row.pieces ? row.pieces.filter((piece) => piece[0] !== 2).map((piece) => piece[1]).join("") : row.baseline;
    row.hay = [row.id, row.shown, text(row, "gold"), text(row, "output"), before ?? "", text(row, "error")].join("\n").toLowerCase();
  }
  let page = 0, shown = rows, sort = { key: "size", sign: 1 };
  const open = new Set();

  const options = (select, all, values) => {
    select.replaceChildren(new Option(all, ""), ...values.map((value) => value instanceof Array ? new Option(uncover(value[1]), value[0]) : new Option(uncover(value), value)));
  };
  const distinct = (key) => [...new Set(rows.map((row) => text(row, key)))].filter(Boolean).sort();
  options(byId("suite"), "all", suites.map((suite, index) => [String(index), suite.name]));
  options(byId("slice"), "all", distinct("slice"));
  options(byId("state"), "all", distinct("state"));
  options(byId("move"), "all", Object.entries(MOVES).filter((pair) => rows.some((row) => row.move === pair[0])));
  byId("move").append(new Option("another answer", "*"));
  const names = () => [...new Set((byId("suite").value ? [suites[byId("suite").value]] : suites).flatMap((suite) => suite.metrics.map((metric) => metric.name)))];
  const fillMetrics = () => { const kept = byId("metric").value; options(byId("metric"), "that moved", names()); byId("metric").value = names().includes(kept) ? kept : ""; };
  fillMetrics();

  const digits = (value) => typeof value === "number" ? String(+value.toPrecision(3)) : value ?? "–";
  const score = (row, metric, side) => { const index = suites[row.suite].metrics.findIndex((item) => item.name === metric); return index < 0 ? null : (row[side] ?? [])[index]; };
  const metricOf = (row) => byId("metric").value || (row.moved ?? [])[0];
  const COLUMNS = [
    ["", null, null],
    ["Suite", "suite", (row) => suites[row.suite].name],
    ["Slice", "slice", (row) => text(row, "slice")],
    ["State", "state", (row) => text(row, "state")],
    ["Baseline", "size", (row) => MOVES[row.move] ?? ""],
    ["Input", "shown", (row) => row.shown],
    ["Candidate", "output", (row) => text(row, "output")],
    ["Score", "score", (row) => {
      const metric = metricOf(row); if (!metric) return "";
      const now = score(row, metric, "scores"), then = score(row, metric, "before");
      return then === null || then === undefined || then === now ? digits(now) : `${digits(then)} → ${digits(now)}`;
    }],
  ];
  const sortValue = (row) => {
    if (sort.key === "size") return row.size ?? 0;
    if (sort.key === "suite") return suites[row.suite].name;
    if (sort.key === "score") { const value = score(row, metricOf(row), "scores"); return typeof value === "number" ? value : -Infinity; }
    return text(row, sort.key);
  };

  const marked = (row, side) => {
    const block = make("pre");
    for (const [kind, words] of row.pieces) {
      if (kind === side) continue; // 1 is removed, 2 is added: each side hides the other's
      block.append(kind ? make(kind === 1 ? "del" : "ins", words) : uncover(words));
    }
    return block;
  };
  const side = (title, content) => { const box = make("div"); box.append(make("h4", title), content); return box; };
  const detail = (row) => {
    const cell = make("td", null, "detail"), box = make("div", null, "example"), sides = make("div", null, "sides");
    cell.colSpan = COLUMNS.length;
    const facts = [`id ${row.id}`, row.line && `line ${row.line}`, row.repeat && `repeat ${row.repeat}`, row.error].filter(Boolean);
    box.append(make("p", facts.join(" · "), "facts"));
    for (const pair of row.inputs ?? []) box.append(make("blockquote", pair[1]));
    sides.append(side("Expected", make("pre", text(row, "gold"))));
    if (row.before) sides.append(side("Baseline", row.pieces ? marked(row, 2) : make("pre", text(row, "baseline"))));
    sides.append(side("Candidate", row.pieces ? marked(row, 1) : make("pre", text(row, "output"))));
    const table = make("table", null, "scores");
    suites[row.suite].metrics.forEach((metric, index) => {
      const now = row.scores[index], then = (row.before ?? [])[index];
      if (now === null && (then ?? null) === null) return;
      const line = make("tr");
      line.append(make("th", metric.name), make("td", row.before && then !== now ? `${digits(then)} → ${digits(now)}` : digits(now)));
      table.append(line);
    });
    box.append(sides, table);
    cell.append(box);
    const line = make("tr");
    line.append(cell);
    return line;
  };
  const toggle = (row, line, button) => {
    if (open.delete(row)) line.nextSibling.remove(); else { open.add(row); line.after(detail(row)); }
    button.setAttribute("aria-expanded", open.has(row));
    button.textContent = open.has(row) ? "▾" : "▸";
  };
  const draw = () => {
    byId("head").replaceChildren(...COLUMNS.map(([title, key], index) => {
      const cell = make("th", null, `c${index}`);
      cell.scope = "col";
      if (!key) return cell;
      const button = make("button", title);
      button.type = "button";
      button.addEventListener("click", () => { sort = { key, sign: sort.key === key ? -sort.sign : 1 }; update(); byId("head").children[index].firstChild.focus(); });
      cell.append(button);
      if (sort.key === key) cell.setAttribute("aria-sort", sort.sign > 0 ? "ascending" : "descending");
      return cell;
    }));
    const body = document.createDocumentFragment();
    for (const row of shown.slice(page * PAGE, (page + 1) * PAGE)) {
      const line = make("tr", null, "row"), button = make("button", open.has(row) ? "▾" : "▸");
      button.type = "button";
      button.setAttribute("aria-expanded", open.has(row));
      button.setAttribute("aria-label", uncover(`details of row ${row.id}`));
      COLUMNS.forEach(([, , write], index) => {
        const cell = make("td", write && write(row).slice(0, 300), `c${index}${index === 4 ? ` ${row.move ?? ""}` : ""}`);
        if (!write) cell.append(button);
        line.append(cell);
      });
      line.addEventListener("click", () => { if (!getSelection().toString()) toggle(row, line, button); });
      body.append(line);
      if (open.has(row)) body.append(detail(row));
    }
    byId("body").replaceChildren(body);
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    byId("page").textContent = `${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("next").disabled = page + 1 >= pages;
  };
  const update = () => {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [suite, slice, state, move] = ["suite", "slice", "state", "move"].map((id) => byId(id).value);
    shown = rows.filter((row) => (!suite || row.suite === +suite) && (!slice || row.slice === slice) && (!state || row.state === state)
      && (!move || (move === "*" ? row.pieces : row.move === move)) && words.every((word) => row.hay.includes(word)));
    const values = new Map(shown.map((row) => [row, sortValue(row)]));
    shown.sort((left, right) => { const a = values.get(left), b = values.get(right); return (a < b ? -1 : a > b ? 1 : 0) * sort.sign; });
    page = 0;
    draw();
  };
  for (const id of ["slice", "state", "move", "metric"]) byId(id).addEventListener("change", update);
  byId("suite").addEventListener("change", () => { fillMetrics(); update(); });
  byId("find").addEventListener("input", update);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  byId("back").addEventListener("click", () => { page -= 1; draw(); });
  byId("next").addEventListener("click", () => { page += 1; draw(); });
  document.addEventListener("keydown", (event) => {
    const isTyping = /INPUT|SELECT|TEXTAREA/.test(event.target.tagName);
    if (event.key === "/" && !isTyping) { event.preventDefault(); byId("find").focus(); }
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.closest("#body")) {
      const buttons = [...byId("body").querySelectorAll("tr.row button")], at = buttons.indexOf(event.target);
      const next = buttons[at + (event.key === "ArrowDown" ? 1 : -1)];
      if (next) { event.preventDefault(); next.focus(); }
    }
  });
  browser.hidden = false;
  update();
})();
