// The report of `trainyard plan`.
"use strict";

(() => {
  const {data, page, format, element, section, figures, choice, table, chart, axis, color, css, breakdown} = trainyard;
  const {best, points, objective, fitting, too_large, refused, counted, money, signed, short, value_text, keys_text, change_text, plan_text, why, reasons, extent} = plan_words;
  const {plans, counts, capacity_bytes, searched, fixed} = data;

  const paths_of = (list) => [...new Set(list.flatMap(({keys}) => Object.keys(keys)))];
  // Money is no kind of figure that tables know: amounts, with the currency in the title.
  const has = (key) => points.some((point) => point[key] !== null && point[key] !== undefined);

  // ---- Summary

  function draw_summary() {
    const part = section("summary", "Summary", extent());
    if (data.stopped) part.append(element("p", {class: "warning"}, "The search was stopped before its end: this is the best that it had found."));
    const {result} = best;
    const {cost, memory} = result;
    figures(part, [
      {name: "step time", value: format.seconds(result.step_time_s), more: `${format.count(result.tokens_per_s > 0 ? result.tokens_per_s : result.samples_per_s)} ${result.tokens_per_s > 0 ? "tokens/s" : "samples/s"}`},
      {name: "model FLOP utilisation", value: format.percent(result.mfu), more: `${format.number(Math.round(result.model_tflops_per_device))} TFLOP/s per device`},
      {name: "memory", value: format.bytes(memory.peak_bytes), more: `of ${format.bytes(capacity_bytes)}, ${format.percent(memory.peak_bytes / capacity_bytes)}`},
      ...(cost.per_step === undefined ? [] : [{name: "cost per step", value: money(cost.per_step), more: cost.per_million_tokens === undefined ? "" : `${money(cost.per_million_tokens)} per million tokens`}]),
      ...(cost.energy_kwh_per_step === undefined ? [] : [{name: "energy per step", value: format.energy(cost.energy_kwh_per_step)}]),
      {name: "examined", value: format.count(counts.simulated + counts.pruned), more: `${format.count(counts.simulated)} simulated, ${format.count(counts.pruned)} cut off`},
    ]);
    for (const warning of result.warnings) part.append(element("p", {class: "warning"}, warning));
  }

  // ---- The best plan, and those behind it

  function draw_best() {
    const part = section("best", "The best plan", `The ${objective.best} of all: ${keys_text(best.keys)}. To be written into a scenario:`);
    const text = element("pre", {id: "plan-text"}, plan_text(best));
    const copy = element("button", {type: "button", id: "copy", click: () => {
      getSelection().selectAllChildren(text);
      navigator.clipboard?.writeText(text.textContent).catch(() => {});
    }}, "copy");
    part.append(text, element("div", {class: "controls"}, copy));
    part.append(element("h3", {}, "Why it wins"), element("ul", {id: "reasons"}, ...reasons().map((reason) => element("li", {}, reason))));
  }

  function draw_plans() {
    const part = section("plans", "The best plans", "A row shows how its plan is written.");
    const paths = paths_of(plans);
    const varying = paths.filter((path) => new Set(plans.map(({keys}) => JSON.stringify(keys[path]))).size > 1);
    const same = paths.filter((path) => !varying.includes(path));
    if (same.length > 0 && plans.length > 1)
      part.append(element("p", {class: "note"}, `All have ${same.map((path) => `${short(path)} ${value_text(best.keys[path])}`).join(", ")}.`));
    const state = {chosen: best};
    const rows = plans.map((plan, index) => ({
      plan,
      rank: index + 1,
      time: plan.result.step_time_s,
      behind: objective.of_result(plan.result) / objective.of_result(best.result) - 1,
      mfu: plan.result.mfu,
      memory: plan.result.memory.peak_bytes,
      cost: plan.result.cost.per_step,
      energy: plan.result.cost.energy_kwh_per_step,
      ...Object.fromEntries((plans.length > 1 ? varying : paths).map((path) => [path, plan.keys[path] === undefined ? null : value_text(plan.keys[path])])),
    }));
    const text = element("pre", {id: "chosen-plan", hidden: true});
    const drawn = table(part, [
      {key: "rank", title: "#", kind: "number"},
      ...(plans.length > 1 ? varying : paths).map((path) => ({key: path, title: short(path)})),
      {key: "time", title: "step time", kind: "seconds"},
      {key: "behind", title: "behind", kind: "percent", sparse: true},
      {key: "mfu", title: "MFU", kind: "percent"},
      {key: "memory", title: "memory", kind: "bytes"},
      ...(rows.some(({cost}) => cost !== undefined) ? [{key: "cost", title: `cost per step in ${data.currency}`, kind: "count"}] : []),
      ...(rows.some(({energy}) => energy !== undefined) ? [{key: "energy", title: "energy per step", kind: "energy"}] : []),
    ], rows, {
      name: "plans",
      row_label: "how this plan is written",
      chosen: (row) => !text.hidden && row.plan === state.chosen,
      on_row: (row) => {
        state.chosen = row.plan;
        text.hidden = false;
        text.textContent = `# plan ${row.rank}\n` + plan_text(row.plan);
        drawn.dispatchEvent(new Event("refresh"));
      },
    });
    part.append(text);
    draw_breakdowns(part, rows);
  }

  function draw_breakdowns(part, rows) {
    part.append(element("h3", {}, "Where their steps go"));
    const used = Object.keys(breakdown).filter((name) => plans.some(({result}) => result.breakdown_s[name] > 0));
    chart(part, "Parts of the step of each plan, stacked", 110 + 34 * plans.length, () => ({
      type: "bar",
      data: {
        labels: rows.map(({rank}) => `plan ${rank}`),
        datasets: used.map((name) => ({label: breakdown[name][0], data: plans.map(({result}) => result.breakdown_s[name]), backgroundColor: breakdown[name][1], barPercentage: 0.85, categoryPercentage: 1})),
      },
      options: {
        indexAxis: "y",
        interaction: {mode: "nearest", intersect: true},
        scales: {x: axis({kind: "seconds", stacked: true, min: 0, ticks: {maxTicksLimit: 9}}), y: {stacked: true, grid: {display: false}}},
        plugins: {tooltip: {callbacks: {label: (item) => ` ${item.dataset.label}: ${format.seconds(item.parsed.x)}, ${format.percent(item.parsed.x / plans[item.dataIndex].result.step_time_s)}`}}},
      },
    }));
  }

  // ---- Time against memory

  const metrics = [
    {key: "time", title: "step time", kind: "seconds"},
    {key: "cost", title: `cost per step in ${data.currency}`, kind: "count"},
    {key: "energy", title: "energy per step", kind: "energy"},
  ].filter(({key}) => has(key));

  const most_of_front = 1.5;  // what is worse hides in a corner how near the others are

  // Of the front, what nothing beats in these two: where one gets better as the other gets worse.
  function staircase(front, key) {
    const ordered = [...front].sort((a, b) => a.memory - b.memory || a[key] - b[key]);
    let least = Infinity;
    return ordered.filter((point) => {
      if (point[key] >= least) return false;
      least = point[key];
      return true;
    });
  }

  function draw_front() {
    const front = points.filter((point) => point.front);
    const all = data.candidates.all;
    const part = section("front", "Time and memory",
      `Each point is a plan that was simulated and fits in ${format.bytes(capacity_bytes)}` + (points.length < all ? `, the best ${format.number(points.length)} of ${format.number(all)}` : "") +
      `. Nothing beats the ${counted(front.length, "plan")} of the front in time, memory, cost and energy at once; the line joins those of them that are best in the two shown.`);
    const controls = element("div", {class: "controls"});
    part.append(controls);
    const state = {metric: metrics[0], whole: false, log: false};
    const far = ({key}) => most_of_front * Math.max(...front.map((point) => point[key]));
    const note = element("p", {class: "note", id: "front-note"});
    const drawn = chart(part, "Plans by memory and time, with the Pareto front", 440, () => {
      const {key, title, kind} = state.metric;
      const at = (point) => ({x: point.memory, y: point[key], point});
      const line = staircase(front, key);
      const near = state.whole ? points : points.filter((point) => point[key] <= far(state.metric));
      note.textContent = near.length < points.length ? `${counted(points.length - near.length, "plan")} whose ${title} is more than ${most_of_front} times that of the front ${points.length - near.length === 1 ? "is" : "are"} not drawn.` : "";
      const group = (label, list, look) => ({label, data: list.map(at), ...look});
      return {
        type: "scatter",
        data: {
          datasets: [
            group("best", [points[0]], {pointStyle: "star", radius: 11, hoverRadius: 13, borderWidth: 3, borderColor: css("--bad"), backgroundColor: css("--bad")}),
            group("Pareto front", line, {showLine: true, borderColor: color(0), backgroundColor: color(0), borderWidth: 2, radius: 5, hoverRadius: 7}),
            group("front in cost or energy", front.filter((point) => !line.includes(point)), {borderColor: color(0), backgroundColor: css("--page"), borderWidth: 2, radius: 5}),
            group("other plans", near.filter((point) => !point.front), {borderColor: css("--muted") + "55", backgroundColor: css("--muted") + "55", radius: 3}),
          ].filter((set) => set.data.length > 0),
        },
        options: {
          interaction: {mode: "nearest", intersect: false},
          scales: {
            x: axis({kind: "bytes", title: "memory of the fullest device", grace: "4%", ticks: {maxTicksLimit: 8, stepSize: byte_step(points.map(({memory}) => memory))}}),
            y: axis({kind, title, log: state.log, grace: state.log ? 0 : "4%"}),
          },
          plugins: {tooltip: {callbacks: {
            title: (items) => items[0].dataset.label,
            label: (item) => describe(item.raw.point),
            // One plan at a time, also where others are at the same place.
          }, filter: (item, index) => index === 0}},
        },
      };
    });
    if (metrics.length > 1)
      choice(controls, "against memory:", metrics.map(({key, title}) => [key, title]), state.metric.key, (key) => {
        state.metric = metrics.find((metric) => metric.key === key);
        drawn.redraw();
      });
    const toggle = (key, text) => {
      const button = element("button", {type: "button", id: "front-" + key, "aria-pressed": "false", click: () => {
        state[key] = !state[key];
        button.classList.toggle("pressed", state[key]);
        button.setAttribute("aria-pressed", state[key]);
        drawn.redraw();
      }}, text);
      controls.append(button);
    };
    toggle("whole", "all plans");
    toggle("log", "log scale");
    part.append(note);
    part.append(element("h3", {}, "The front"));
    plan_table(part, front, "front");
  }

  // Ticks of bytes at round binary figures.
  function byte_step(values) {
    const most = Math.max(...values) - Math.min(...values);
    const unit = 2 ** (10 * Math.floor(Math.log2(Math.max(1024, most)) / 10));
    return ([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200].find((size) => most / (size * unit) <= 8) ?? 200) * unit;
  }

  function describe(point) {
    return [
      `${format.seconds(point.time)}, ${signed(point.time / points[0].time - 1)}; ${format.bytes(point.memory)}`,
      ...(point.cost === null ? [] : [`${money(point.cost)} per step`]),
      ...(point.energy === null ? [] : [`${format.energy(point.energy)} per step`]),
      ...lines_of(keys_text(point.keys), 60),
    ];
  }
  function lines_of(text, width) {
    const lines = [""];
    for (const word of text.split(", ")) {
      const last = lines[lines.length - 1];
      if (last !== "" && last.length + word.length > width) lines.push(word);
      else lines[lines.length - 1] = last === "" ? word : last + ", " + word;
    }
    return lines;
  }

  function plan_table(part, list, name) {
    const paths = paths_of(list).filter((path) => new Set(list.map(({keys}) => JSON.stringify(keys[path]))).size > 1);
    table(part, [
      {key: "time", title: "step time", kind: "seconds"},
      {key: "behind", title: "slower by", kind: "percent", sparse: true},
      {key: "memory", title: "memory", kind: "bytes"},
      ...(has("cost") ? [{key: "cost", title: `cost in ${data.currency}`, kind: "count"}] : []),
      ...(has("energy") ? [{key: "energy", title: "energy", kind: "energy"}] : []),
      ...paths.map((path) => ({key: path, title: short(path)})),
    ], list.map((point) => ({
      ...point,
      behind: point.time / points[0].time - 1,
      ...Object.fromEntries(paths.map((path) => [path, point.keys[path] === undefined ? null : value_text(point.keys[path])])),
    })), {name, sort: "time", most: 25});
  }

  // ---- Neighbours of the best

  // Stacked parts of the difference; those that make it faster go to the left.
  function draw_neighbours() {
    const part = section("neighbours", "One key changed", "The best plan with a single key changed, and what makes the difference: parts to the right cost time, parts to the left save some. Of another framework it is the best plan. What has a time was simulated.");
    const drawn = fitting.filter(({from_s}) => from_s > 0);
    if (drawn.length > 0) draw_differences(part, drawn);
    const columns = [
      {key: "change", title: "change"},
      {key: "slower", title: "slower by", kind: "percent"},
      {key: "step_time_s", title: "step time", kind: "seconds"},
      {key: "peak_bytes", title: "memory", kind: "bytes"},
      {key: "reason", title: "mostly because of"},
    ];
    const row_of = (neighbour) => ({...neighbour, change: change_text(neighbour), reason: why(neighbour)});
    if (drawn.length > 0) table(part, columns, drawn.map(row_of), {name: "neighbours", most: 15});
    if (too_large.length > 0) {
      part.append(element("h3", {}, "Do not fit in memory"));
      table(part, columns.map((column) => (column.key === "slower" ? {...column, title: "would be slower by"} : column)),
        too_large.map(row_of), {name: "too large", most: 15});
    }
    if (refused.length > 0) {
      part.append(element("h3", {}, "Do not run, or cannot win"));
      table(part, [{key: "change", title: "change"}, {key: "refused", title: "why"}],
        refused.map((neighbour) => ({change: change_text(neighbour), refused: neighbour.refused})), {name: "refused", most: 10});
    }
  }

  function draw_differences(part, neighbours) {
    const share = (neighbour, name) => neighbour.causes.filter(({category}) => category === name).reduce((sum, {seconds}) => sum + seconds, 0) / neighbour.from_s;
    const used = Object.keys(breakdown).filter((name) => neighbours.some((neighbour) => Math.abs(share(neighbour, name)) > 1e-5));
    const most = 24;
    const state = {most};
    // In a narrow window what changes stands above by how much.
    const narrow = innerWidth < 700;
    const label = (neighbour) => [change_text(neighbour), signed(neighbour.slower)];
    const labels = () => neighbours.slice(0, state.most).map((neighbour) => (narrow ? label(neighbour) : label(neighbour).join("  ")));
    const height = () => 110 + (narrow ? 38 : 24) * Math.min(state.most, neighbours.length);
    const drawn = chart(part, "How much slower the best plan is with one key changed, by cause", height(), () => ({
      type: "bar",
      data: {
        labels: labels(),
        datasets: used.map((name) => ({
          label: breakdown[name][0],
          data: neighbours.slice(0, state.most).map((neighbour) => share(neighbour, name)),
          backgroundColor: breakdown[name][1],
          barPercentage: 0.85,
          categoryPercentage: 1,
        })),
      },
      options: {
        indexAxis: "y",
        interaction: {mode: "nearest", intersect: true},
        scales: {
          x: axis({kind: "percent", stacked: true, title: "of the best plan's step time", ticks: {maxTicksLimit: 9}}),
          y: {stacked: true, grid: {display: false}, ticks: {autoSkip: false, font: {size: 12}}},
        },
        plugins: {tooltip: {callbacks: {
          title: (items) => change_text(neighbours[items[0].dataIndex]),
          label: (item) => ` ${item.dataset.label}: ${signed(item.parsed.x)}`,
          afterLabel: (item) => {
            const name = used[item.datasetIndex];
            return lines_of(neighbours[item.dataIndex].causes.filter(({category, why: text}) => category === name && text !== "").map((cause) => " " + cause.why).join(", "), 60);
          },
          footer: (items) => `in all ${signed(neighbours[items[0].dataIndex].slower)}, ${format.seconds(neighbours[items[0].dataIndex].step_time_s)}`,
        }}},
      },
    }));
    if (neighbours.length <= most) return;
    const all = element("button", {type: "button", click: () => {
      state.most = Infinity;
      drawn.frame.style.height = height() + "px";
      all.hidden = true;
      drawn.redraw();
    }}, `draw all ${neighbours.length}, not only the nearest ${most}`);
    part.append(element("div", {class: "controls"}, all));
  }

  // ---- What was searched

  function draw_search() {
    const part = section("searched", "What was searched", `${data.frameworks.join(", ")}. ${extent()}`);
    figures(part, [
      {name: "combinations", value: format.count(counts.combinations), more: "of all values"},
      {name: "refused", value: format.count(counts.refused), more: "do not run in the framework"},
      {name: "too large", value: format.count(counts.too_large), more: "do not fit, and were not simulated"},
      {name: "cut off", value: format.count(counts.slower), more: "by a bound that proves them worse"},
      {name: "simulated", value: format.count(counts.simulated), more: "in full"},
      ...(counts.left > 0 ? [{name: "not looked at", value: format.count(counts.left), class: "bad"}] : []),
    ]);
    table(part, [{key: "key", title: "key"}, {key: "values", title: "values"}],
      searched.map(({path, values}) => ({key: path, values: values.join(", ")})), {name: "searched", most: 60});
    for (const reason of data.left_out) part.append(element("p", {class: "note"}, "Left out: " + reason));
    const given = Object.entries(fixed);
    if (given.length > 0)
      part.append(element("h3", {}, "Given by the scenario"), element("p", {}, given.map(([path, value]) => `${path} ${value_text(value)}`).join(", ") + "."));
  }

  if (best === undefined) {
    section("summary", "Summary", extent()).append(element("p", {class: "warning"}, "Nothing was found that fits in memory."));
  } else {
    draw_summary();
    draw_best();
    draw_plans();
    draw_front();
    draw_neighbours();
  }
  draw_search();
  page.dataset.ready = "yes";
})();
