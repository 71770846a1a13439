// The report of `trainyard run`.
"use strict";

(() => {
  const {data, page, format, element, section, figures, choice, table, chart, axis, tooltip, color, css, breakdown} = trainyard;
  const {result, summary} = data;

  const counted = (count, one, several) => `${format.number(count)} ${count === 1 ? one : several}`;

  // ---- Summary

  function describe() {
    const hardware = summary.hardware.map((group) => `${format.number(group.nodes)} × ${group.node}`).join(" and ");
    const {data: replicas, ...others} = result.parallelism;
    const split = Object.entries({data: replicas, ...others}).filter(([name, size]) => name === "data" || size > 1);
    const batch = summary.has_tokens ? `${format.number(summary.global_batch)} × ${format.number(summary.sequence)} tokens`
                                     : counted(summary.global_batch, "sample", "samples");
    return `${summary.model} (${format.count(summary.parameters)} parameters, ${summary.precision}, ${batch} a step) on ` +
      `${format.number(result.devices)} × ${summary.accelerator} in ${hardware}, ${summary.fabric}; ${summary.framework}: ` +
      `${split.map(([name, size]) => `${name} ${size}`).join(", ")}; ${counted(result.micro_batches, "micro-batch", "micro-batches")} ` +
      `of ${result.micro_batch}, recompute ${result.recompute}.`;
  }

  // What is known of failures, money and energy.
  function beyond_the_step() {
    const {cost, goodput, run} = result;
    const money = (amount) => `${format.count(amount)} ${cost.currency}`;
    const tokens = cost.per_million_tokens;
    return [
      ...(goodput.interruptions === undefined ? [] : [{name: "goodput", value: format.percent(goodput.fraction), more: `${format.number(goodput.interruptions_per_day)} interruptions a day`}]),
      ...(cost.per_hour === undefined ? [] : [tokens === undefined
        ? {name: "cost per step", value: money(cost.per_step), more: `${money(cost.per_hour)} an hour`}
        : {name: "cost per million tokens", value: money(tokens), more: `${money(cost.per_hour)} an hour; ${cost.price}, ${cost.market.replaceAll("_", " ")}`}]),
      ...(cost.power_w_per_device === undefined ? [] : [{name: "energy per step", value: format.energy(cost.energy_kwh_per_step), more: `${format.number(Math.round(cost.power_w_per_device))} W per device, with host, network and cooling`}]),
      ...(run === undefined ? [] : [{name: "whole run", value: counted(Number(run.days.toPrecision(3)), "day", "days"), more: [run.cost === undefined ? "" : money(run.cost), run.energy_kwh === undefined ? "" : format.energy(run.energy_kwh)].filter((text) => text !== "").join(", ")}]),
    ];
  }

  function draw_summary() {
    const part = section("summary", "Summary", describe());
    const rate = summary.has_tokens ? result.tokens_per_s : result.samples_per_s;
    const unit = summary.has_tokens ? "tokens/s" : "samples/s";
    const {fits, peak_bytes, capacity_bytes} = result.memory;
    figures(part, [
      {name: "step time", value: format.seconds(result.step_time_s), more: result.ideal_step_time_s > 0 ? format.seconds(result.ideal_step_time_s) + " on an ideal network" : ""},
      {name: "throughput", value: format.count(rate) + " " + unit, more: `${format.count(rate / result.devices)} per device`},
      {name: "model FLOP utilisation", value: format.percent(result.mfu), more: `${format.number(Math.round(result.model_tflops_per_device))} TFLOP/s per device; HFU ${format.percent(result.hfu)}`},
      {name: "communication overhead", value: format.percent(result.communication_overhead), more: "of the step, beyond an ideal network"},
      {name: "memory", value: fits ? "fits" : "does not fit", class: fits ? "good" : "bad", more: `${format.bytes(peak_bytes)} of ${format.bytes(capacity_bytes)}`},
      {name: "device busy", value: format.percent(result.device_busy), more: "with any kernel"},
      ...beyond_the_step(),
    ]);
    for (const warning of result.warnings) part.append(element("p", {class: "warning"}, warning));
  }

  // ---- Where the step goes

  function draw_breakdown() {
    const part = section("breakdown", "Where the step goes", "What an average device's compute stream does or waits for; the parts add up to the step time.");
    const parts = Object.entries(result.breakdown_s).filter(([, seconds]) => seconds > 0);
    chart(part, "Parts of the step, stacked", 190, () => ({
      type: "bar",
      data: {
        labels: ["step"],
        datasets: parts.map(([name, seconds]) => ({label: breakdown[name][0], data: [seconds], backgroundColor: breakdown[name][1], barPercentage: 0.9, categoryPercentage: 1})),
      },
      options: {
        indexAxis: "y",
        interaction: {mode: "nearest", intersect: true},
        scales: {x: axis({kind: "seconds", stacked: true, max: result.step_time_s, ticks: {maxTicksLimit: 9, includeBounds: false}}), y: {stacked: true, display: false}},
        plugins: {tooltip: {callbacks: {title: () => "", label: (item) => ` ${item.dataset.label}: ${format.seconds(item.parsed.x)}, ${format.percent(item.parsed.x / result.step_time_s)}`}}},
      },
    }));
    table(part,
      [{key: "part", title: "part"}, {key: "seconds", title: "time", kind: "seconds", sum: true}, {key: "share", title: "share", kind: "percent", sum: true}],
      parts.map(([name, seconds]) => ({part: breakdown[name][0], seconds, share: seconds / result.step_time_s})),
      {name: "breakdown", sort: "seconds", descending: true});
  }

  // ---- The critical path

  // Communication is on it while bytes are under way: nobody waits.
  const path_word = (part) => breakdown[part][0].replace(/^waiting for (.*?)s?$/, (_, what) => what === "host" ? "host" : `${what} communication`);

  function draw_critical_path() {
    if (!result.critical_path_s) return;
    const part = section("critical_path", "What decides the step", "The critical path: one chain of operations through the ranks, each of which begins when the one before it has ended. Only what is on it can make the step faster.");
    const parts = Object.entries(result.critical_path_s).filter(([, seconds]) => seconds > 0);
    const columns = [{key: "seconds", title: "time", kind: "seconds", sum: true}, {key: "share", title: "share", kind: "percent", sum: true}];
    table(part, [{key: "part", title: "part"}, ...columns],
      parts.map(([name, seconds]) => ({part: path_word(name), seconds, share: seconds / result.step_time_s})),
      {name: "critical-path", sort: "seconds", descending: true});
    table(part, [{key: "operation", title: "operation"}, {key: "where", title: "where"}, {key: "part", title: "part"}, {key: "count", title: "times", kind: "count"}, ...columns],
      result.critical_path.map(({operation, where, category, seconds, count}) => ({operation, where, part: path_word(category), count, seconds, share: seconds / result.step_time_s})),
      {name: "critical-operations", sort: "seconds", descending: true});
  }

  // ---- Memory

  const memory_words = {parameters: "parameters", gradients: "gradients", optimizer: "optimizer", activations: "activations", buffers: "buffers"};
  const memory_parts = Object.keys(memory_words);

  function draw_memory() {
    const memory = result.memory;
    const part = section("memory", "Memory", `Of the fullest device, rank ${format.number(memory.peak_rank)}: what it has allocated over the step. ` +
      `${format.bytes(memory.peak_bytes)} must fit, which is the peak of the allocations and ${format.bytes(memory.overhead)} around them: device context, communication buffers, fragmentation.`);
    const {time_s, allocated} = data.memory;
    const used = memory_parts.filter((name) => allocated?.[name]?.some((bytes) => bytes !== 0));
    if (time_s.length > 0) {
      // Until the end of the step nothing changes after the last moment.
      const times = [...time_s, Math.max(result.step_time_s, time_s[time_s.length - 1])];
      const last = (list) => [...list, list[list.length - 1]];
      chart(part, "Allocated bytes over the step, stacked", 340, () => ({
        type: "line",
        data: {
          datasets: [...used.map((name, index) => ({
            label: memory_words[name],
            data: last(allocated[name]).map((y, i) => ({x: times[i], y})),
            backgroundColor: color(memory_parts.indexOf(name)) + "cc",
            borderColor: color(memory_parts.indexOf(name)),
            stack: "allocated",
            fill: index === 0 ? "origin" : "-1",
            stepped: true,
          })), {
            label: "capacity without the overhead",
            data: [times[0], times[times.length - 1]].map((x) => ({x, y: memory.capacity_bytes - memory.overhead})),
            stack: "capacity",
            order: -1,  // on top of the areas
            borderColor: css("--text"),
            borderDash: [6, 4],
            borderWidth: 2,
            fill: false,
          }],
        },
        options: {
          parsing: false,
          elements: {point: {radius: 0, hitRadius: 6}, line: {borderWidth: 1}},
          interaction: {mode: "nearest", axis: "x", intersect: false},
          scales: {
            x: axis({kind: "seconds", title: "time in the step", min: 0, max: times[times.length - 1], ticks: {maxTicksLimit: 11, includeBounds: false}}),
            y: axis({kind: "bytes", stacked: true, min: 0, ticks: byte_ticks(Math.max(memory.allocated_bytes, memory.capacity_bytes))}),
          },
          plugins: {tooltip: {callbacks: {title: (items) => format.seconds(items[0].parsed.x), ...tooltip("bytes").callbacks}}},
        },
      }));
      if (data.memory.moments > time_s.length)
        part.append(element("p", {class: "note"}, `${format.number(data.memory.moments)} changes, thinned to ${format.number(time_s.length)}; peaks are kept. --memory FILE.csv writes all of them.`));
    }
    table(part,
      [{key: "part", title: "at the peak"}, {key: "bytes", title: "memory", kind: "bytes", sum: true}],
      [...memory_parts, "overhead"].filter((name) => memory[name] > 0).map((name) => ({part: memory_words[name] ?? name, bytes: memory[name]})),
      {name: "memory"});
    if (memory.fits) return;
    part.append(element("p", {class: "warning"}, `It does not fit: ${format.bytes(memory.peak_bytes - memory.capacity_bytes)} too much.`));
    const advice = (title, rows, first) => {
      if (rows.length === 0) return;
      part.append(element("h3", {}, title));
      table(part, [{key: "what", title: first}, {key: "bytes", title: "memory", kind: "bytes"}], rows, {name: title});
    };
    advice("What takes most of it", memory.largest.map(({what, bytes}) => ({what, bytes})), "part");
    advice(memory.changes[0]?.fits ? "It would fit with one of these" : "Nothing that was tried makes it fit; this comes closest",
      memory.changes.map(({set, peak_bytes}) => ({what: set.map((setting) => "--set " + setting).join(" "), bytes: peak_bytes})), "change");
  }

  // Ticks of bytes at round binary figures.
  function byte_ticks(most) {
    const unit = 2 ** (10 * Math.floor(Math.log2(Math.max(1, most)) / 10));
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200].find((size) => most / (size * unit) <= 8) ?? 200;
    return {stepSize: step * unit};
  }

  // ---- Schedule

  function draw_schedule() {
    const {rows, phases, programs} = data.schedule;
    if (rows.length === 0) return;
    const note = rows.length < programs ? ` ${rows.length} of ${format.number(programs)} programs are shown.` : "";
    const part = section("schedule", "What ranks do when", `Passes of micro-batches on the compute stream, one rank of each program; gaps are waiting.${note} Choose a window, or move the wheel over the chart to zoom and drag to move.`);
    const figures_of_pass = 5;
    const phase_colors = ["#56b4e9", "#d55e00", "#e69f00", "#009e73", "#7f7f7f"];
    const labels = rows.map((row) => `${row.program} (rank ${format.number(row.rank)})`);
    const end = result.step_time_s;
    let earliest = 0;
    let latest = end;
    const bars = phases.map(() => []);
    rows.forEach((row, index) => {
      for (let i = 0; i < row.passes.length; i += figures_of_pass) {
        const [phase, micro_batch, layer, start, duration] = row.passes.slice(i, i + figures_of_pass);
        const bar = {x: [start * 1e-9, (start + duration) * 1e-9], y: labels[index], micro_batch, layer};
        earliest = Math.min(earliest, bar.x[0]);
        latest = Math.max(latest, bar.x[1]);
        bars[phase].push(bar);
      }
    });
    const visible = {from: earliest, to: latest};
    const controls = element("div", {class: "controls"});
    part.append(controls);

    const drawn = chart(part, "Passes of each rank over time", Math.min(900, 110 + 26 * rows.length), () => ({
      type: "bar",
      data: {
        labels,
        datasets: phases.map((phase, i) => ({
          label: phase,
          data: bars[i].filter(in_window),
          // Every other micro-batch is paler, so that neighbours can be told apart.
          backgroundColor: ({raw}) => phase_colors[i] + (raw !== undefined && raw.micro_batch % 2 === 1 ? "b0" : ""),
          grouped: false,
          barPercentage: 0.85,
          categoryPercentage: 1,
        })).filter((set, i) => bars[i].length > 0),
      },
      options: {
        indexAxis: "y",
        interaction: {mode: "nearest", intersect: true},
        scales: {
          x: axis({kind: "seconds", title: "time in the step", min: visible.from, max: visible.to, ticks: {maxTicksLimit: 9, maxRotation: 0, includeBounds: false}}),
          y: {grid: {display: false}, ticks: {autoSkip: rows.length > 30, font: {size: 11}}},
        },
        plugins: {tooltip: {callbacks: {
          title: (items) => items[0].label,
          label: (item) => ` ${item.dataset.label}` + (item.raw.micro_batch >= 0 ? ` of micro-batch ${item.raw.micro_batch}` : "") + (item.raw.layer >= 0 ? `, from layer ${item.raw.layer}` : ""),
          afterLabel: (item) => ` ${format.seconds(item.raw.x[1] - item.raw.x[0])}, from ${format.seconds(item.raw.x[0])}`,
        }}},
      },
    }));

    function in_window(bar) {
      return bar.x[1] >= visible.from && bar.x[0] <= visible.to;
    }

    function show(from, to) {
      const width = Math.min(latest - earliest, Math.max(to - from, 1e-7));
      visible.from = Math.min(Math.max(earliest, from), latest - width);
      visible.to = visible.from + width;
      const {data: shown_data, options} = drawn.drawn;
      const used = bars.filter((list) => list.length > 0);
      shown_data.datasets.forEach((set, i) => {
        set.data = used[i].filter(in_window);
      });
      options.scales.x.min = visible.from;
      options.scales.x.max = visible.to;
      drawn.drawn.update("none");
    }
    const zoom = (factor, at = (visible.from + visible.to) / 2) => {
      const share = (at - visible.from) / (visible.to - visible.from);
      const width = (visible.to - visible.from) * factor;
      show(at - share * width, at - share * width + width);
    };
    const move = (share) => show(visible.from + share * (visible.to - visible.from), visible.to + share * (visible.to - visible.from));
    const button = (text, label, click) => controls.append(element("button", {type: "button", title: label, "aria-label": label, click}, text));
    button("whole step", "show the whole step", () => show(earliest, latest));
    button("−", "zoom out", () => zoom(2));
    button("+", "zoom in", () => zoom(0.5));
    button("←", "earlier", () => move(-0.5));
    button("→", "later", () => move(0.5));

    const time_at = (event) => drawn.drawn.scales.x.getValueForPixel(event.offsetX);
    drawn.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, time_at(event));
    }, {passive: false});
    let held = null;
    drawn.canvas.addEventListener("pointerdown", (event) => {
      held = time_at(event);
    });
    drawn.canvas.addEventListener("pointermove", (event) => {
      if (held === null || event.buttons === 0) return;
      const by = held - time_at(event);
      show(visible.from + by, visible.to + by);
    });
    addEventListener("pointerup", () => {
      held = null;
    });

    const left_out = rows.reduce((sum, row) => sum + row.left_out, 0);
    if (left_out > 0) part.append(element("p", {class: "note"}, `${format.number(left_out)} passes at the end of the step are left out; --trace writes all.`));
    // Many micro-batches are thinner than a point: begin with those that can be told apart.
    const most = Math.max(...rows.map((row) => row.passes.length / figures_of_pass));
    const readable = 150;
    if (most > 2 * readable) show(earliest, earliest + (latest - earliest) * readable / most);
  }

  // ---- Communication and links

  function draw_communication() {
    const part = section("communication", "Communication", "Per device and step, averaged over ranks.");
    if (result.communication.length === 0) {
      part.append(element("p", {}, "There is none."));
      return;
    }
    table(part, [
      {key: "purpose", title: "purpose"},
      {key: "operation", title: "operation"},
      {key: "count", title: "calls", kind: "count", sum: true},
      {key: "bytes", title: "bytes", kind: "bytes", sum: true},
      {key: "wire_bytes", title: "on the wire", kind: "bytes", sum: true},
      {key: "busy_s", title: "busy", kind: "seconds", sum: true},
      {key: "exposed_s", title: "exposed", kind: "seconds", sum: true},
    ], result.communication, {name: "communication", sort: "exposed_s", descending: true});
  }

  function draw_links() {
    const used = result.links.filter((link) => link.utilization_peak > 0);
    const part = section("links", "Links", "How full links are over the step: bytes carried, as a share of what their capacity could carry.");
    if (used.length === 0) {
      part.append(element("p", {}, "No link carries anything that counts."));
      return;
    }
    chart(part, "Use of links by their kind", 90 + 46 * used.length, () => ({
      type: "bar",
      data: {
        labels: used.map((link) => `${link.kind} (${format.number(link.count)})`),
        datasets: [
          {label: "mean", data: used.map((link) => link.utilization_mean), backgroundColor: color(0), maxBarThickness: 18},
          {label: "busiest", data: used.map((link) => link.utilization_peak), backgroundColor: color(1), maxBarThickness: 18},
        ],
      },
      options: {
        indexAxis: "y",
        interaction: {mode: "index", intersect: false, axis: "y"},
        scales: {x: axis({kind: "percent", min: 0}), y: {grid: {display: false}}},
        plugins: {tooltip: {callbacks: {...tooltip("percent", "x").callbacks, footer: (items) => "busiest: " + used[items[0].dataIndex].busiest}}},
      },
    }));
    for (const link of result.faulty_links) part.append(element("p", {class: "warning"}, "Degraded or broken: " + link));
    const {rows, purposes, all} = data.links;
    if (rows.length === 0) return;
    if (rows.length < all)
      part.append(element("p", {class: "note"}, `The busiest of each kind, ${format.number(rows.length)} of ${format.number(all)} links that carry anything; --links FILE.csv writes all of them.`));
    const carried = purposes.filter((purpose, i) => rows.some((row) => row[5][i] > 0));
    table(part, [
      {key: "kind", title: "kind"},
      {key: "link", title: "link"},
      {key: "utilization", title: "utilisation", kind: "percent"},
      {key: "bytes", title: "bytes", kind: "bytes"},
      {key: "capacity", title: "capacity", kind: "rate"},
      ...carried.map((purpose) => ({key: purpose, title: "for " + purpose, kind: "bytes", sparse: true})),
    ], rows.map(([kind, link, bytes, capacity, utilization, uses]) => ({
      kind, link, bytes, capacity, utilization, ...Object.fromEntries(purposes.map((purpose, i) => [purpose, uses[i]])),
    })), {name: "links", sort: "utilization", descending: true, most: 25});
  }

  // ---- Layers

  const layer_figures = ["count", "compute_s", "flops", "bytes", "communication_bytes", "wire_bytes", "busy_s", "exposed_s"];

  function draw_layers() {
    const {rows, words, all} = data.layers;
    if (rows.length === 0) return;
    const part = section("layers", "Layers and operators",
      "Per device and step, averaged over all ranks: of a layer that one of eight stages has, an eighth. Compute and exposed time add up to the step time.");
    if (rows.length < all)
      part.append(element("p", {class: "note"}, `The first ${format.number(rows.length)} of ${format.number(all)} rows; --layers FILE.csv writes all of them.`));
    const entries = rows.map(([layer, block, operation, kind, ...values]) => {
      const row = {layer: layer < 0 ? null : layer, block: words[block], operation: words[operation], class: words[kind]};
      layer_figures.forEach((figure, i) => {
        row[figure] = values[i];
      });
      row.step_s = row.compute_s + row.exposed_s;
      return row;
    });

    // Rows that agree in `keys`, added up.
    function grouped(keys) {
      const groups = new Map();
      for (const row of entries) {
        const id = JSON.stringify(keys.map((key) => row[key]));
        if (!groups.has(id)) groups.set(id, {...Object.fromEntries(keys.map((key) => [key, row[key]])), step_s: 0, ...Object.fromEntries(layer_figures.map((figure) => [figure, 0]))});
        const sum = groups.get(id);
        for (const figure of [...layer_figures, "step_s"]) sum[figure] += row[figure];
      }
      return [...groups.values()];
    }

    const titles = {layer: "layer", block: "block", operation: "operator", class: "class"};
    const columns = (keys) => [
      ...keys.map((key) => ({key, title: titles[key], kind: key === "layer" ? "number" : "text"})),
      {key: "step_s", title: "of the step", kind: "seconds", sum: true},
      {key: "count", title: "times", kind: "count", sparse: true},
      {key: "compute_s", title: "compute", kind: "seconds", sum: true, sparse: true},
      {key: "exposed_s", title: "exposed", kind: "seconds", sum: true, sparse: true},
      {key: "busy_s", title: "busy", kind: "seconds", sparse: true},
      {key: "flops", title: "FLOP", kind: "flops", sum: true, sparse: true},
      {key: "bytes", title: "memory traffic", kind: "bytes", sum: true, sparse: true},
      {key: "communication_bytes", title: "payload", kind: "bytes", sum: true, sparse: true},
      {key: "wire_bytes", title: "on the wire", kind: "bytes", sum: true, sparse: true},
    ].filter((column) => keys.includes(column.key) || entries.some((row) => row[column.key] !== 0));
    const views = {
      operator: ["block", "operation", "class"],
      layer: ["layer"],
      both: ["layer", "block", "operation", "class"],
    };
    const controls = element("div", {class: "controls"});
    const holder = element("div");
    part.append(controls, holder);
    const show = (view) => {
      holder.replaceChildren();
      table(holder, columns(views[view]), view === "both" ? entries : grouped(views[view]),
        {name: "layers", most: 25, ...(view === "layer" ? {sort: "layer"} : {sort: "step_s", descending: true})});
    };
    choice(controls, "rows:", [["operator", "by operator"], ["layer", "by layer"], ["both", "by layer and operator"]], "operator", show);
    show("operator");
  }

  // ---- Scenario and trace

  function draw_scenario() {
    const {text, overrides, file} = data.scenario;
    const part = section("scenario", "Scenario", overrides.length > 0 ? `${file}, with --set ${overrides.join(" --set ")} in it.` : file);
    part.append(element("pre", {}, text));
    part.append(element("h3", {}, "Trace"));
    if (data.trace === "") {
      part.append(element("p", {}, "There is none beside this page. ", element("code", {}, `trainyard run ${file} --trace FILE.json.gz`), " writes one; Perfetto and chrome://tracing open it."));
      return;
    }
    const link = data.trace.split("/").map(encodeURIComponent).join("/");
    part.append(element("p", {}, "Every kernel and communication of the recorded ranks is in ", element("a", {href: link, download: true}, data.trace), ", beside this page; Perfetto and chrome://tracing open it."));
  }

  draw_summary();
  draw_breakdown();
  draw_critical_path();
  draw_memory();
  draw_schedule();
  draw_communication();
  draw_links();
  draw_layers();
  draw_scenario();
  page.dataset.ready = "yes";
})();
