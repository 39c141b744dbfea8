"use strict";
// Draws the confusion matrix and the images from the JSON in #data. The pictures are cut from the sheets in the style.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const { names, parts } = data;
  const PAGE = matchMedia("(max-width: 40rem)").matches ? 12 : 42; // images at once

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  for (const part of Object.values(parts)) {
    part.probabilities = bytes(part.probabilities);
    const classes = bytes(part.classes);
    part.classes = names.length > 256 ? new Uint16Array(classes.buffer) : classes;
  }

  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children); // strings become text, never markup
    return node;
  };
  const percent = (step) => (step >= 254 ? ">99 %" : step < 2 ? "<1 %" : `${Math.round(step / 2.55)} %`);
  const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  // -- one image ---------------------------------------------------------------------------------------------

  const picture = (number, scale) => {
    const { width, height, columns, per_sheet } = data.tile;
    const place = number % per_sheet;
    const node = make("span", { class: `picture sheet-${Math.floor(number / per_sheet)}` });
    Object.assign(node.style, {
      width: `${width * scale}px`,
      height: `${height * scale}px`,
      backgroundSize: `${columns * width * scale}px auto`,
      backgroundPosition: `${-(place % columns) * width * scale}px ${-Math.floor(place / columns) * height * scale}px`,
    });
    return node;
  };

  const scaleTo = (side) => Math.max(1, Math.round(side / Math.max(data.tile.width, data.tile.height)));

  // the likeliest classes with their probabilities, the label always among them
  const chances = (part, i, n) => {
    const from = i * data.likeliest;
    let rows = [...Array(data.likeliest).keys()].map((k) => [part.classes[from + k], part.probabilities[from + k]]);
    if (part.predicted[i] < 0) rows = [];
    const label = rows.findIndex(([c]) => c === part.label[i]);
    if (label >= n) rows.splice(n - 1, 0, rows[label]);
    const list = make("span", { class: "chances" });
    for (const [c, step] of rows.slice(0, n)) {
      const right = c === part.label[i];
      const row = make("span", { class: right ? "chance label" : "chance" },
        make("span", { title: names[c] }, (right ? "✓ " : "") + names[c]), make("span", {}, percent(step)));
      row.style.setProperty("--p", `${step / 2.55}%`);
      list.append(row);
    }
    if (!rows.length) list.append(make("span", {}, `✓ ${names[part.label[i]]}, never held out`));
    return list;
  };

  const described = (part, i) => {
    const label = names[part.label[i]];
    if (part.predicted[i] < 0) return `${label}, never held out`;
    return part.label[i] === part.predicted[i] ? `${label}, classified correctly` : `${label}, classified as ${names[part.predicted[i]]}`;
  };

  const called = (part, i) => (part.name ? part.name[i] : String(part.number[i]));

  const tile = (part, i) => {
    const certainty = part.predicted[i] < 0 ? "" : `, ${percent(part.probabilities[i * data.likeliest])}`;
    const node = make("button", { type: "button", class: "tile", "aria-haspopup": "dialog",
      "aria-label": `Image ${called(part, i)}: ${described(part, i)}${certainty}` },
      picture(part.tile[i], scaleTo(84)), chances(part, i, Math.min(3, data.likeliest)));
    node.addEventListener("click", () => showDetail(part, i));
    return node;
  };

  const showDetail = (part, i) => {
    const held = part === parts.test ? "" : part.fold && part.fold[i] >= 0 ? `, held out in ${data.folds[part.fold[i]]}`
      : data.repeats > 1 && part !== parts.suspects ? `, in ${part.votes[i]} of ${data.repeats} repeats` : "";
    document.getElementById("detail-title").textContent = described(part, i);
    document.getElementById("detail-body").replaceChildren(
      make("p", { class: "dim" }, `${part === parts.test ? "Test" : "Training"} image ${called(part, i)}${part.name ? "" : ", counted from 0"}${held}`),
      picture(part.tile[i], scaleTo(196)), chances(part, i, data.likeliest));
    document.getElementById("detail").showModal();
  };
  const dialog = document.getElementById("detail");
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  for (const gallery of document.querySelectorAll("[data-entries]")) {
    const part = parts[gallery.dataset.part];
    gallery.append(...gallery.dataset.entries.split(" ").filter(Boolean).map((i) => tile(part, Number(i))));
  }

  // -- the confusion matrix ----------------------------------------------------------------------------------

  const table = document.getElementById("confusion");
  const chosen = { part: "out_of_fold", unit: "count", row: 0, column: 0 };
  let cells = [];

  const drawMatrix = () => {
    const { matrix } = parts[chosen.part];
    const rates = matrix.map((row) => { const n = row.reduce((a, b) => a + b, 0); return row.map((v) => (n ? v / n : 0)); });
    const worst = rates.reduce((most, row, r) => row.reduce((m, rate, c) => (c === r ? m : Math.max(m, rate)), most), 1e-9);
    const head = make("tr", {}, make("td", { class: "corner" }),
      ...names.map((name) => make("th", { scope: "col", title: name }, make("span", {}, name))));
    cells = matrix.map((row, r) => row.map((n, c) => {
      const share = r === c ? rates[r][c] : Math.sqrt(rates[r][c] / worst);
      const rate = (100 * rates[r][c]).toFixed(1);
      const button = make("button", { type: "button", tabindex: -1, "aria-pressed": false,
        class: `${r === c ? "right" : "wrong"} ${n ? "" : "none"}`,
        "aria-label": `${names[r]} ${r === c ? "classified correctly" : `classified as ${names[c]}`}: ${n}, ${rate} %` },
        n === 0 ? "·" : chosen.unit === "count" ? String(n) : rate);
      button.style.setProperty("--share", share);
      Object.assign(button.dataset, { row: r, column: c });
      return button;
    }));
    table.style.setProperty("--classes", names.length);
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...cells.map((row, r) =>
      make("tr", {}, make("th", { scope: "row", title: names[r] }, names[r]), ...row.map((cell) => make("td", {}, cell))))));
  };

  const choose = (row, column) => {
    cells[chosen.row][chosen.column].tabIndex = -1;
    Object.assign(chosen, { row, column });
    cells[row][column].tabIndex = 0; // Tab enters the matrix here
  };

  const showCell = (row, column) => {
    choose(row, column);
    for (const cell of table.querySelectorAll("[aria-pressed=true]")) cell.setAttribute("aria-pressed", false);
    cells[row][column].setAttribute("aria-pressed", true);
    const part = parts[chosen.part], n = part.matrix[row][column], all = part.matrix[row].reduce((a, b) => a + b, 0);
    const here = [...part.label.keys()].filter((i) => part.label[i] === row && part.predicted[i] === column);
    const votes = here.reduce((sum, i) => sum + part.votes[i], 0);
    const what = row === column ? `${names[row]}, classified correctly` : `${names[row]}, classified as ${names[column]}`;
    document.getElementById("cell-title").textContent =
      `${what}: ${count(n, data.repeats > 1 && chosen.part === "out_of_fold" ? "prediction" : "image")}`;
    const shown = row === column ? `random sample of ${here.length}` : votes < n ? `the ${here.length} most confident`
      : votes > here.length ? `of ${count(here.length, "image")}` : "";
    document.getElementById("cell-note").textContent = n === 0 ? "" : [`${((100 * n) / all).toFixed(1)} % of ${names[row]}`,
      shown, "most confident first"].filter(Boolean).join("; ");
    const gallery = document.querySelector("#cell .gallery"), more = document.getElementById("more");
    gallery.replaceChildren();
    const addPage = () => {
      const from = gallery.childElementCount;
      gallery.append(...here.slice(from, from + PAGE).map((i) => tile(part, i)));
      const left = here.length - gallery.childElementCount;
      more.hidden = left === 0;
      more.textContent = `Show ${Math.min(PAGE, left)} more of ${left}`;
      return gallery.children[from];
    };
    more.onclick = () => addPage().focus();
    addPage();
  };

  table.addEventListener("click", (event) => {
    const cell = event.target.closest("button");
    if (cell) showCell(Number(cell.dataset.row), Number(cell.dataset.column));
  });
  table.addEventListener("keydown", (event) => {
    const last = names.length - 1;
    const { row, column } = chosen;
    const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1], Home: [row, 0], End: [row, last] }[event.key];
    if (!to) return;
    event.preventDefault();
    choose(...to.map((place) => Math.min(last, Math.max(0, place))));
    cells[chosen.row][chosen.column].focus();
  });
  for (const input of document.querySelectorAll(".controls input")) {
    input.addEventListener("change", () => {
      chosen[input.name] = input.value;
      drawMatrix();
      showCell(chosen.row, chosen.column);
    });
  }

  drawMatrix();
  const { matrix } = parts.out_of_fold;
  let [row, column] = [0, 0]; // begin with the most frequent mistake
  matrix.forEach((counts, r) => counts.forEach((n, c) => {
    if (r !== c && (row === column || n > matrix[row][column])) [row, column] = [r, c];
  }));
  showCell(row, column);
}
