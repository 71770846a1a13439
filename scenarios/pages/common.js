// What the pages of every kind are made of: figures with units, sections, tables, charts. A page's own script uses
// `trainyard`, and puts text into the page as text only, never as HTML.
"use strict";

const trainyard = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");

  // ---- Figures with units

  // Made once: a table of thousands of rows makes as many figures.
  const whole = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});
  const grouped = new Intl.NumberFormat("en-US", {maximumSignificantDigits: 4});
  const alphabet = new Intl.Collator("en", {numeric: true});

  function digits(value, count = 3) {
    const number = Number(value.toPrecision(count));
    return Math.abs(number) >= 1e4 ? whole.format(number) : String(number);
  }

  // `units` from the largest to the smallest, each with what it is worth.
  function scaled(value, units, count) {
    if (value === 0) return units.zero;
    const size = Math.abs(value);
    const [word, worth] = units.find(([, least]) => size >= least * 0.9995) ?? units[units.length - 1];
    return digits(value / worth, count) + (word === "" ? "" : " " + word);
  }
  const units = (zero, ...list) => Object.assign(list, {zero});

  const of_seconds = units("0 s", ["h", 3600], ["min", 60], ["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9], ["ps", 1e-12]);
  const of_bytes = units("0 B", ["PiB", 2 ** 50], ["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024], ["B", 1]);
  const of_rates = units("0 B/s", ["TB/s", 1e12], ["GB/s", 1e9], ["MB/s", 1e6], ["kB/s", 1e3], ["B/s", 1]);
  const of_flops = units("0", ["EFLOP", 1e18], ["PFLOP", 1e15], ["TFLOP", 1e12], ["GFLOP", 1e9], ["MFLOP", 1e6], ["FLOP", 1]);
  const of_energy = units("0 Wh", ["GWh", 1e6], ["MWh", 1e3], ["kWh", 1], ["Wh", 1e-3], ["mWh", 1e-6]);
  const of_counts = units("0", ["T", 1e12], ["B", 1e9], ["M", 1e6], ["K", 1e3], ["", 1]);

  // `count`: how many digits matter.
  const format = {
    text: (value) => String(value),
    number: (value, count = 3) => (Number.isInteger(value) ? whole.format(value) : digits(value, count + 1)),
    count: (value, count = 3) => (Math.abs(value) < 1e4 ? grouped.format(value) : scaled(value, of_counts, count)),
    seconds: (value, count = 3) =>
      Math.abs(value) >= 60 && Math.abs(value) < 600 ? digits(value, count + 1) + " s" : scaled(value, of_seconds, count),
    bytes: (value, count = 3) => scaled(value, of_bytes, count),
    rate: (value, count = 3) => scaled(value, of_rates, count),
    energy: (value, count = 3) => scaled(value, of_energy, count),
    flops: (value, count = 3) => scaled(value, of_flops, count),
    percent: (value, count = 3) => {
      const percent = 100 * value;
      return (percent !== 0 && Math.abs(percent) < 0.1 ? digits(percent, 2) : percent.toFixed(count - 2)) + " %";
    },
  };
  const present = (value) => value !== null && value !== undefined && value !== "";
  const shown = (value, kind) => (present(value) ? format[kind](value) : "");

  // ---- Elements

  // element("p", {class: "note"}, "text", child, …). A property that is a function listens to the event of its name.
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && present(value)) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  // A part of the page with an entry in its contents.
  function section(id, title, ...notes) {
    const made = element("section", {id}, element("h2", {}, title));
    for (const note of notes) made.append(element("p", {class: "note"}, note));
    document.getElementById("contents").append(element("a", {href: "#" + id}, title));
    page.append(made);
    return made;
  }

  // Figures to read first: [{name, value, more, class}].
  function figures(parent, list) {
    const grid = element("div", {class: "figures"});
    for (const figure of list)
      grid.append(
        element("div", {class: "figure"},
          element("div", {class: "name"}, figure.name),
          element("div", {class: "value " + (figure.class ?? "")}, figure.value),
          figure.more ? element("div", {class: "more"}, figure.more) : null));
    parent.append(grid);
  }

  // Buttons of which one is pressed: [[value, text], …].
  function choice(parent, label, options, chosen, on_choice) {
    const buttons = options.map(([value, text]) =>
      element("button", {
        type: "button",
        click: () => {
          for (const button of buttons) press(button, button.value === value);
          on_choice(value);
        },
        value,
      }, text));
    const press = (button, pressed) => {
      button.classList.toggle("pressed", pressed);
      button.setAttribute("aria-pressed", pressed);
    };
    for (const button of buttons) press(button, button.value === chosen);
    parent.append(element("span", {role: "group", "aria-label": label}, label + " ", ...buttons));
  }

  function save(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], {type}));
    element("a", {href: url, download: name}).click();
    URL.revokeObjectURL(url);
  }

  // ---- Tables

  // columns: [{key, title, kind, sum, sparse}], kind as in `format`; `sum` adds up the rows that the filter leaves, and of
  // a `sparse` one zeros are not shown. rows: objects.
  // options: {name, sort: key, descending, most} of which `most` rows are drawn until more are asked for; `column_filters`
  // gives every column a filter of its own; `on_row(row)` makes rows buttons, which do what `row_label` says, and
  // `chosen(row)` is the one that is marked.
  function table(parent, columns, rows, options = {}) {
    const state = {key: options.sort ?? null, descending: options.descending ?? false, words: [], most: options.most ?? 50, tests: new Map()};
    const column_of = (key) => columns.find((column) => column.key === key);
    const is_text = (column) => (column.kind ?? "text") === "text";
    const class_of = (column) => (is_text(column) ? "text" : "number");
    const cell = (row, column) => (column.sparse && row[column.key] === 0 ? "" : shown(row[column.key], column.kind ?? "text"));
    const longest_line = 48;
    const most_at_once = 1000;  // more take seconds to lay out, at every change

    const count = element("span", {class: "note", "aria-live": "polite"});
    const search = element("input", {
      type: "search",
      placeholder: "filter rows",
      "aria-label": "filter rows",
      input: () => {
        state.words = search.value.toLowerCase().split(/\s+/).filter(present);
        fill();
      },
    });
    const all = element("button", {type: "button", click: () => {
      state.most = Infinity;
      fill();
    }});
    const more = element("button", {type: "button", click: () => {
      state.most += 200;
      fill();
    }}, "show 200 more");
    const download = element("button", {type: "button", click: () => save((options.name ?? "table") + ".csv", to_csv(), "text/csv")}, "save as CSV");
    const heads = columns.map((column) =>
      element("th", {class: class_of(column), scope: "col"},
        element("button", {type: "button", click: () => sort_by(column)}, column.title)));
    const filters = columns.map((column) => {
      const input = element("input", {type: "search", "aria-label": "filter " + column.title, placeholder: is_text(column) ? "word" : "< 10", input: () => {
        state.tests.set(column, test_of(column, input.value));
        fill();
      }});
      return element("th", {class: class_of(column)}, input);
    });
    const filter_row = options.column_filters ? element("tr", {class: "filters"}, ...filters) : null;
    const body = element("tbody");
    const foot = element("tfoot");
    const made = element("div", {class: "table-frame"},
      element("div", {class: "controls"}, search, count, more, all, download),
      element("div", {class: "table", tabindex: 0, role: "region", "aria-label": options.name ?? "table"},
        element("table", {}, element("thead", {}, element("tr", {}, ...heads), filter_row), body, foot)));

    function sort_by(column) {
      state.descending = state.key === column.key ? !state.descending : !is_text(column);
      state.key = column.key;
      fill();
    }

    function compare(one, other) {
      const a = one[state.key];
      const b = other[state.key];
      if (!present(a) || !present(b)) return present(a) ? -1 : present(b) ? 1 : 0;  // what is missing comes last
      const order = typeof a === "number" && typeof b === "number" ? a - b : alphabet.compare(a, b);
      return state.descending ? -order : order;
    }

    // Of a column: "< 10", ">= 5", "3 .. 7" and "8" compare numbers in the unit in which the column shows them; anything
    // else is looked for in what the cell shows.
    function test_of(column, text) {
      const wanted = text.trim().toLowerCase();
      if (wanted === "") return () => true;
      const number = "(-?[0-9.]+(?:e[-+]?[0-9]+)?)";
      const range = wanted.match(new RegExp(`^${number} *\\.\\. *${number}$`));
      const bound = wanted.match(new RegExp(`^(<=|>=|<|>|=)? *${number}$`));
      const scale = column.kind === "percent" ? 100 : 1;
      const compare_with = (value) => (row) => typeof row[column.key] === "number" && value(row[column.key] * scale);
      if (!is_text(column) && range) return compare_with((value) => value >= Number(range[1]) && value <= Number(range[2]));
      if (!is_text(column) && bound) {
        const limit = Number(bound[2]);
        const tests = {"<": (a) => a < limit, "<=": (a) => a <= limit, ">": (a) => a > limit, ">=": (a) => a >= limit};
        return compare_with(tests[bound[1]] ?? ((a) => a === limit));
      }
      return (row) => cell(row, column).toLowerCase().includes(wanted);
    }

    const texts = new Map();  // of rows, for the filter
    function text_of(row) {
      if (!texts.has(row)) texts.set(row, columns.map((column) => cell(row, column)).join(" ").toLowerCase());
      return texts.get(row);
    }
    function matching() {
      const tests = [...state.tests.values()];
      return rows.filter((row) => state.words.every((word) => text_of(row).includes(word)) && tests.every((test) => test(row)));
    }

    function row_of(row) {
      const act = options.on_row && (() => options.on_row(row));
      const press = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        act();
      };
      const properties = act ? {class: options.chosen?.(row) ? "opens chosen" : "opens", tabindex: 0, title: options.row_label, click: act, keydown: press} : {};
      return element("tr", properties, ...columns.map((column) => {
        const text = cell(row, column);
        return element("td", {class: class_of(column) + (text.length > longest_line ? " long" : "")}, text);
      }));
    }

    function fill() {
      const found = matching();
      if (state.key !== null) found.sort(compare);
      columns.forEach((column, i) => {
        if (column.key === state.key) heads[i].setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        else heads[i].removeAttribute("aria-sort");
      });
      body.replaceChildren(...found.slice(0, state.most).map(row_of));
      const sums = columns.some((column) => column.sum) && found.length > 1;
      foot.replaceChildren(...(sums ? [element("tr", {}, ...columns.map((column, i) =>
        element("td", {class: class_of(column)},
          column.sum ? shown(found.reduce((sum, row) => sum + (row[column.key] ?? 0), 0), column.kind) : i === 0 ? "sum" : "")))] : []));
      count.textContent = found.length === rows.length ? `${rows.length} rows` : `${found.length} of ${rows.length} rows`;
      all.hidden = found.length <= state.most || found.length > most_at_once;
      more.hidden = found.length <= state.most + 200;
      all.textContent = `show all ${found.length}, not only ${Math.min(state.most, found.length)}`;
    }

    function to_csv() {
      const quoted = (value) => {
        const text = present(value) ? String(value) : "";
        return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
      };
      const found = matching();
      if (state.key !== null) found.sort(compare);
      const lines = [columns.map((column) => quoted(column.key)), ...found.map((row) => columns.map((column) => quoted(row[column.key])))];
      return lines.map((line) => line.join(",") + "\n").join("");
    }

    const few = rows.length <= 12;
    for (const control of [search, count, download]) control.hidden = few;
    parent.append(made);
    made.addEventListener("refresh", fill);  // when another row is chosen
    fill();
    return made;
  }

  // ---- Charts

  // Okabe and Ito's colours, which people tell apart however they see colours, and darker ones of the same hues.
  const palette = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#b8a800", "#7f7f7f", "#004c78", "#8f6200", "#005f45", "#8a3c00"];
  const color = (index) => palette[index % palette.length];

  // The parts of `breakdown_s`: work in blues and greens, waiting for communication in warm colours, the rest in greys.
  const breakdown = {
    matmul: ["matrix products", "#0072b2"],
    attention: ["attention", "#56b4e9"],
    memory_bound: ["memory-bound kernels", "#009e73"],
    optimizer: ["optimizer", "#00543d"],
    exposed_data: ["waiting for data", "#d55e00"],
    exposed_tensor: ["waiting for tensor", "#e69f00"],
    exposed_pipeline: ["waiting for pipeline", "#cc79a7"],
    exposed_context: ["waiting for context", "#f0c75e"],
    exposed_expert: ["waiting for experts", "#8a2d04"],
    exposed_offload: ["waiting for offload", "#7a4a6a"],
    bubble: ["pipeline bubble", "#8c959f"],
    host: ["waiting for host", "#57606a"],
    straggler: ["stragglers", "#b8a800"],
  };

  const charts = [];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function apply_theme() {
    Chart.defaults.color = css("--text");
    Chart.defaults.borderColor = css("--grid");
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.plugins.tooltip.backgroundColor = css("--text");
    Chart.defaults.plugins.tooltip.titleColor = css("--page");
    Chart.defaults.plugins.tooltip.bodyColor = css("--page");
    Chart.defaults.plugins.tooltip.footerColor = css("--page");
  }
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  Chart.defaults.font.size = 13;
  Chart.defaults.plugins.legend.labels.boxWidth = 14;
  Chart.defaults.plugins.legend.position = "bottom";

  function draw(chart) {
    chart.drawn?.destroy();
    chart.drawn = new Chart(chart.canvas, chart.make());
  }
  function draw_again() {
    apply_theme();
    charts.forEach(draw);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_again);
  addEventListener("beforeprint", draw_again);
  addEventListener("afterprint", draw_again);
  apply_theme();

  // A chart of a given height. `make` gives the configuration for Chart.js, and is asked again whenever the colours
  // change or redraw() of the result is called. `chart.drawn` is what Chart.js made.
  function chart(parent, label, height, make) {
    const canvas = element("canvas", {role: "img", "aria-label": label});
    const frame = element("div", {class: "chart"}, canvas);
    frame.style.height = height + "px";
    parent.append(frame);
    const made = {canvas, frame, make, drawn: null, redraw: () => draw(made)};
    charts.push(made);
    draw(made);
    return made;
  }

  // An axis whose figures have units. options: {kind, title, log, stacked, …} of which the rest goes to Chart.js.
  function axis({kind = "number", title, log = false, ...rest}) {
    const logarithmic = (value, index, ticks) => {
      const first = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
      const few = ticks.length <= 12;  // with more, only those that start with 1, 2 and 5 have room
      return few || [1, 2, 5].some((digit) => Math.abs(first - digit) < 1e-6) ? shown(value, kind) : "";
    };
    // With as many digits as tell the ticks apart.
    const linear = (value, index, ticks) => {
      for (let count = 3; count <= 6; ++count) {
        const labels = ticks.map((tick) => format[kind](tick.value, count));
        if (new Set(labels).size === labels.length) return labels[index];
      }
      return shown(value, kind);
    };
    return {
      type: log ? "logarithmic" : "linear",
      title: {display: present(title), text: title},
      ...rest,
      ticks: {...rest.ticks, callback: log ? logarithmic : linear},
    };
  }

  // Text for a tooltip: "name: 1.2 ms", of a value on the axis `of` ("y", or "x" for bars that lie).
  const tooltip = (kind, of = "y") => ({
    callbacks: {label: (item) => ` ${item.dataset.label}: ${shown(item.parsed[of], kind)}`},
  });

  return {data, page, format, shown, alphabet, element, section, figures, choice, save, table, chart, axis, tooltip, color, breakdown, css};
})();
