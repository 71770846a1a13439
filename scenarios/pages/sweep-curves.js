// Curves of a sweep: which number over which parameter, of which series.
"use strict";

// `chosen` holds what the other parts of the page show too: {lines, listeners}.
function sweep_curves(parent, chosen, open_point) {
  const {format, shown, element, chart, axis, color, css} = trainyard;
  const {simulated, metrics, metric_of, axes, paths, lines_along, ranked, value_text, metric_text} = sweep_points;
  const few = 8;
  const most_at_once = 12;  // without being asked
  const most_listed = 200;
  const widest_linear = 3;  // the largest over the smallest number of an axis that is not logarithmic at first

  const state = {
    axis: axes[0],
    metric: metrics[0].field,
    log_x: true,
    log_y: false,
    kept: new Map(),  // of a parameter, the only value shown, as JSON
    shown: new Map(),  // keys of lines, with their colours
    words: [],
  };
  let lines = [];

  // ---- Which lines

  const passes = (point) => [...state.kept].every(([path, value]) => JSON.stringify(point.parameter(path)) === value);
  function filtered() {
    return lines.map((line) => ({...line, points: line.points.filter(passes)})).filter((line) => line.points.length > 0);
  }
  function show_line(key) {
    const taken = new Set(state.shown.values());
    let free = 0;
    while (taken.has(free)) ++free;
    state.shown.set(key, free);
  }
  function show_best(candidates) {
    state.shown.clear();
    const best = new Set(ranked(candidates).slice(0, few));
    for (const line of candidates) if (best.has(line)) show_line(line.key);  // in the order of the sweep
  }
  function show_all(candidates) {
    state.shown.clear();
    for (const line of candidates) show_line(line.key);
  }
  function begin_with(candidates) {
    if (candidates.length <= most_at_once) show_all(candidates);
    else show_best(candidates);
  }

  // ---- Controls

  const option = (value, text, selected) => element("option", {value, selected}, text);
  const labelled = (text, control) => element("label", {}, text + " ", control);
  const main_metrics = metrics.filter(({main}) => main);
  const other_metrics = metrics.filter(({main}) => !main);
  const metric_choice = element("select", {id: "metric", change: () => {
    state.metric = metric_choice.value;
    state.log_y = spans(drawn_lines().flatMap((line) => line.points.map((point) => point.value(state.metric))), 20);
    draw();
  }}, ...main_metrics.map(({field, name}) => option(field, name, field === state.metric)),
    other_metrics.length > 0
      ? element("optgroup", {label: "every other number"}, ...other_metrics.map(({field, name}) => option(field, name)))
      : null);
  const axis_choice = element("select", {id: "x-axis", change: () => {
    state.axis = axes.find(({key}) => key === axis_choice.value);
    lines = lines_along(state.axis);
    state.log_x = spans(simulated.map(state.axis.of), widest_linear);
    begin_with(filtered());
    draw();
  }}, ...axes.map(({key, name}) => option(key, name)));

  function toggle(id, text, key) {
    return element("button", {id, type: "button", click: () => {
      state[key] = !state[key];
      draw();
    }}, text);
  }
  const log_x = toggle("log-x", "log x", "log_x");
  const log_y = toggle("log-y", "log y", "log_y");

  const most_values = 60;
  const filters = paths
    .filter(({path, values}) => values.length > 1 && values.length <= most_values && path !== "name")
    .map(({path, values}) => {
      const select = element("select", {"data-path": path, change: () => {
        if (select.value === "") state.kept.delete(path);
        else state.kept.set(path, select.value);
        begin_with(filtered());
        draw();
      }}, option("", "all"), ...values.map((value) => option(JSON.stringify(value), value_text(value))));
      return labelled(path, select);
    });

  const canvas_place = element("div");
  const note = element("p", {class: "note", id: "curves-note"});

  // ---- Legend

  const search = element("input", {type: "search", id: "series-search", placeholder: "find series", "aria-label": "find series", input: () => {
    state.words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
    fill_legend();
  }});
  const act = (id, text, action) => element("button", {id, type: "button", click: () => {
    action(matching());
    draw();
  }}, text);
  const legend_note = element("span", {class: "note", "aria-live": "polite"});
  const legend_controls = element("div", {class: "controls"}, search,
    act("show-best", `best ${few}`, show_best), act("show-all", "all", show_all), act("show-none", "none", () => state.shown.clear()), legend_note);
  const legend = element("div", {class: "legend", id: "legend", role: "group", "aria-label": "series shown"});

  function matching() {
    const found = filtered();
    if (state.words.length === 0) return found;
    return found.filter((line) => state.words.every((word) => line.name.toLowerCase().includes(word)));
  }
  function entry_of(line) {
    const slot = state.shown.get(line.key);
    const box = element("input", {type: "checkbox", checked: slot !== undefined, change: () => {
      if (box.checked) show_line(line.key);
      else state.shown.delete(line.key);
      draw();
    }});
    const sample = element("span", {class: "sample" + (slot >= most_at_once ? " dashed" : "")});
    if (slot !== undefined) sample.style.borderColor = color(slot);
    return element("label", {title: line.name}, box, sample, element("span", {class: "name"}, line.name));
  }
  function fill_legend() {
    const all = filtered();
    const found = matching();
    // Those shown come first, so that a few of very many are at hand.
    const many = all.length > most_at_once;
    const ordered = many ? [...found.filter((line) => state.shown.has(line.key)), ...found.filter((line) => !state.shown.has(line.key))] : found;
    legend.replaceChildren(...ordered.slice(0, most_listed).map(entry_of));
    if (ordered.length > most_listed)
      legend.append(element("span", {class: "note"}, `and ${ordered.length - most_listed} more: type above to find them`));
    legend.classList.toggle("many", many);
    legend_controls.hidden = !many;
    const drawn = all.filter((line) => state.shown.has(line.key)).length;
    legend_note.textContent = `${drawn} of ${all.length} series shown` +
      (drawn === few && all.length > few ? "; the best are those that do most per device at their largest scale, in memory" : "");
  }

  // ---- Chart

  const drawn_lines = () => filtered().filter((line) => state.shown.has(line.key));
  function spans(values, ratio) {
    const numbers = values.filter((value) => typeof value === "number");
    const least = Math.min(...numbers);
    return numbers.length > 1 && least > 0 && Math.max(...numbers) / least >= ratio;
  }
  const positive = (values) => values.every((value) => value > 0);

  // The axis ends where the points do, with a little room.
  function ends_of(xs, log) {
    if (xs.length < 2) return {};
    const [least, most] = [xs[0], xs[xs.length - 1]];
    const room = log ? (most / least) ** 0.03 : 0.03 * (most - least);
    return log ? {min: least / room, max: most * room} : {min: Math.max(least - room, Math.min(least, 0)), max: most + room};
  }

  function dataset_of(line) {
    const slot = state.shown.get(line.key);
    const ink = color(slot);
    const data = line.points
      .map((point) => ({x: state.axis.of(point), y: point.value(state.metric), point}))
      .filter(({x, y}) => typeof x === "number" && typeof y === "number")
      .sort((a, b) => a.x - b.x);
    const busy = state.shown.size > 20;
    return {
      label: line.name,
      data,
      borderColor: ink,
      backgroundColor: ink,
      borderWidth: busy ? 1.2 : 2,
      borderDash: slot >= most_at_once ? [6, 4] : [],
      // What does not fit in memory: hollow, and the way to it dotted.
      segment: {borderDash: ({p0, p1}) => (p0.raw.point.fits && p1.raw.point.fits ? undefined : [2, 4])},
      pointBackgroundColor: data.map(({point}) => (point.fits ? ink : css("--page"))),
      pointBorderColor: ink,
      pointBorderWidth: data.map(({point}) => (point.fits ? 1 : 2)),
      pointStyle: data.map(({point}) => (point.fits ? "circle" : "rectRot")),
      pointRadius: data.map(({point}) => (busy ? 2.5 : 4) + (point.fits ? 0 : 1.5)),
      pointHoverRadius: 7,
      pointHitRadius: 8,
    };
  }

  function capacity_of(datasets) {
    if (state.metric !== "memory.peak_bytes") return [];
    const drawn = datasets.flatMap(({data}) => data);
    const capacities = new Set(drawn.map(({point}) => point.value("memory.capacity_bytes")));
    if (capacities.size !== 1) return [];
    const [capacity] = capacities;
    const xs = drawn.map(({x}) => x);
    return [{
      label: "capacity", data: [Math.min(...xs), Math.max(...xs)].map((x) => ({x, y: capacity})),
      borderColor: css("--bad"), borderWidth: 1.5, borderDash: [8, 4], pointRadius: 0, pointHitRadius: 0,
    }];
  }

  function tooltip_lines({raw: {point}}) {
    const metric = metric_of(state.metric);
    const peak = metric_text(point, "memory.peak_bytes");
    return [
      `${metric.name}: ${shown(point.value(state.metric), metric.kind)}`,
      ...(state.metric === "step_time_s" ? [] : [`step time: ${metric_text(point, "step_time_s")}`]),
      ...(state.metric === "mfu" ? [] : [`MFU: ${metric_text(point, "mfu")}`]),
      point.fits ? `memory: ${peak}` : `memory: ${peak}, which does not fit in ${metric_text(point, "memory.capacity_bytes")}`,
    ];
  }

  // Ticks at whole powers of two, where bytes are shown in GiB.
  function tick_step(datasets) {
    if (metric_of(state.metric).kind !== "bytes" || state.log_y) return {};
    const most = Math.max(...datasets.flatMap(({data}) => data.map(({y}) => y)));
    return most > 0 ? {beginAtZero: true, ticks: {stepSize: 2 ** Math.floor(Math.log2(most / 5) + 0.5)}} : {};
  }

  function configuration() {
    const metric = metric_of(state.metric);
    const datasets = drawn_lines().map(dataset_of);
    const xs = [...new Set(datasets.flatMap(({data}) => data.map(({x}) => x)))].sort((a, b) => a - b);
    const own_ticks = xs.length > 0 && xs.length <= 12;
    return {
      type: "line",
      data: {datasets: [...datasets, ...capacity_of(datasets)]},
      options: {
        parsing: false,
        normalized: false,
        interaction: {mode: "nearest", intersect: true},
        onClick: (event, items, drawn) => {
          const point = items.length > 0 ? drawn.data.datasets[items[0].datasetIndex].data[items[0].index].point : null;
          if (point) open_point(point);
        },
        onHover: (event, items) => {
          event.native.target.style.cursor = items.length > 0 ? "pointer" : "";
        },
        scales: {
          x: axis({
            title: state.axis.name, log: state.log_x, ...ends_of(xs, state.log_x),
            afterBuildTicks: (scale) => {
              if (own_ticks) scale.ticks = xs.map((value) => ({value}));
            },
          }),
          y: axis({kind: metric.kind, title: metric.name, log: state.log_y, grace: state.log_y ? undefined : "4%", ...tick_step(datasets)}),
        },
        plugins: {
          legend: {display: false},
          tooltip: {
            filter: (item, index) => index < 3,  // where points lie on each other
            callbacks: {
              title: (items) => items[0]?.raw.point && `${format.number(state.axis.of(items[0].raw.point))} ${state.axis.name}`,
              label: (item) => item.dataset.label,
              afterLabel: tooltip_lines,
              footer: () => "click for the scenario",
            },
          },
        },
      },
    };
  }

  let drawn_chart = null;
  function press(button, pressed, possible) {
    button.classList.toggle("pressed", pressed);
    button.setAttribute("aria-pressed", pressed);
    button.disabled = !possible;
  }
  function draw() {
    const shown_points = drawn_lines().flatMap((line) => line.points);
    const can_x = positive(shown_points.map(state.axis.of).filter((value) => value !== null));
    const can_y = positive(shown_points.map((point) => point.value(state.metric)).filter((value) => value !== null));
    state.log_x = state.log_x && can_x;
    state.log_y = state.log_y && can_y;
    press(log_x, state.log_x, can_x);
    press(log_y, state.log_y, can_y);
    const without = shown_points.filter((point) => point.value(state.metric) === null).length;
    const unfit = shown_points.filter((point) => !point.fits).length;
    note.textContent = [
      state.metric === "memory.peak_bytes" && capacity_of(drawn_lines().map(dataset_of)).length > 0 ? "The dashed red line is what a device has." : "",
      unfit > 0 ? `Hollow diamonds do not fit in memory (${unfit} of ${shown_points.length} points shown).` : "",
      without > 0 ? `${without} of the points shown have no such number.` : "",
      shown_points.length === 0 ? "No series is shown: choose some below." : "",
    ].join(" ");
    fill_legend();
    if (drawn_chart === null) drawn_chart = chart(canvas_place, "curves by series", 460, configuration);
    else drawn_chart.redraw();
    chosen.lines = drawn_lines().map((line) => ({...line, slot: state.shown.get(line.key)}));
    for (const listen of chosen.listeners) listen();
  }

  parent.append(
    element("div", {class: "controls"}, labelled("metric", metric_choice), labelled("over", axis_choice), log_x, log_y),
    filters.length > 0 ? element("div", {class: "controls filters", id: "curve-filters"}, element("span", {class: "note"}, "only"), ...filters) : "",
    canvas_place, note, legend_controls, legend);
  lines = lines_along(state.axis);
  state.log_x = spans(simulated.map(state.axis.of), widest_linear);
  begin_with(filtered());
  state.log_y = spans(drawn_lines().flatMap((line) => line.points.map((point) => point.value(state.metric))), 20);
  draw();
}
