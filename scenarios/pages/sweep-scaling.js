// How the series of a sweep scale: efficiency with knees and fits, what is lost to what, and where the time goes.
"use strict";

function sweep_scaling(chosen, open_point) {
  const {format, shown, element, section, table, chart, choice, axis, color, breakdown} = trainyard;
  const {series, breakdown_parts, causes, metric_text} = sweep_points;
  const simulated_series = series.filter((one) => one.points.some((point) => point.ok));
  const points_of = (one) => one.points.filter((point) => point.ok);
  const analysed_of = (one) => points_of(one).filter((point) => point.value("scaling_efficiency") !== null);
  const all_points = sweep_points.points;

  const state = {series: chosen.lines[0]?.points[0].series ?? simulated_series[0], shares: false, losses: "efficiency"};

  const cause_words = {kernels: ["smaller or more kernels", "#0072b2"]};
  for (const [part, words] of Object.entries(breakdown)) cause_words[part.replace("exposed_", "")] ??= words;
  const words_of_cause = (cause) => cause_words[cause] ?? [cause.replaceAll("_", " "), "#7f7f7f"];
  const words_of_part = (part) => breakdown[part] ?? [part.replaceAll("_", " "), "#7f7f7f"];

  const open_at = (event, items, drawn) => {
    const item = items[0] && drawn.data.datasets[items[0].datasetIndex];
    const point = item?.points?.[items[0].index] ?? item?.data[items[0].index]?.point;
    if (point) open_point(point);
  };
  const pointer = (event, items) => {
    event.native.target.style.cursor = items.length > 0 ? "pointer" : "";
  };

  // ---- Efficiency of the series shown above

  const scaling = section("scaling", "Scaling",
    "Throughput per device against the baseline of the series, of those that are shown above and the one that is chosen below. A diamond marks the knee: beyond it, a further device brings less than half of what one of the baseline brings.");
  const losses_place = element("div");

  const devices_of = (point) => point.value("devices");
  const doublings = (one, devices) => Math.log2(devices / devices_of(all_points[one.baseline]));
  // What the fit says, as an efficiency.
  function fitted(one, devices) {
    const x = one.kind === "strong" ? devices / devices_of(all_points[one.baseline]) - 1 : doublings(one, devices);
    const efficiency = 1 / (1 + one.fit.slope * x);
    return state.losses === "efficiency" ? efficiency : 1 - efficiency;
  }
  function fit_dataset(one, slot) {
    const devices = analysed_of(one).map(devices_of);
    const [least, most] = [Math.min(...devices), Math.max(...devices)];
    const steps = 40;
    const data = Array.from({length: steps + 1}, (_, step) => least * (most / least) ** (step / steps)).map((x) => ({x, y: fitted(one, x)}));
    return {label: "fit of " + one.name, data, borderColor: color(slot), borderWidth: 1.5, borderDash: [3, 3], pointRadius: 0, pointHitRadius: 0, of_fit: true};
  }
  function efficiency_dataset({one, slot}) {
    const value = state.losses === "efficiency" ? "scaling_efficiency" : "scaling_loss";
    const data = analysed_of(one).map((point) => ({x: devices_of(point), y: point.value(value), point}));
    const ink = color(slot);
    const is_knee = ({point}) => point.position === one.knee;
    return {
      label: one.name, data, borderColor: ink, backgroundColor: ink, borderWidth: one === state.series ? 3 : chosen.lines.length > 20 ? 1 : 2,
      borderDash: slot >= 12 ? [6, 4] : [],
      pointRadius: data.map((item) => (is_knee(item) ? 8 : chosen.lines.length > 20 ? 2 : 3.5)), pointStyle: data.map((item) => (is_knee(item) ? "rectRot" : "circle")),
      pointHoverRadius: 9, pointHitRadius: 8,
    };
  }
  // Each series once, also where the lines above run along another parameter; and the one that is looked at.
  function lines_with_scale() {
    const lines = new Map();
    for (const {points: [{series: one}], slot} of chosen.lines) if (!lines.has(one)) lines.set(one, {one, slot});
    if (!lines.has(state.series)) {
      const taken = new Set([...lines.values()].map(({slot}) => slot));
      let free = 0;
      while (taken.has(free)) ++free;
      lines.set(state.series, {one: state.series, slot: free});
    }
    return [...lines.values()];
  }

  function efficiency_chart() {
    const lines = lines_with_scale();
    const datasets = lines.map(efficiency_dataset);
    if (state.series.fit) datasets.push(fit_dataset(state.series, lines.find(({one}) => one === state.series).slot));
    const xs = [...new Set(datasets.flatMap(({of_fit, data}) => (of_fit ? [] : data.map(({x}) => x))))].sort((a, b) => a - b);
    const log = xs.length > 1 && xs[xs.length - 1] / xs[0] >= 3;
    return {
      type: "line",
      data: {datasets},
      options: {
        parsing: false,
        interaction: {mode: "nearest", intersect: true},
        onClick: open_at,
        onHover: pointer,
        scales: {
          x: axis({title: "devices", log, ...(log ? {min: xs[0] * 0.93, max: xs[xs.length - 1] * 1.07} : {}), afterBuildTicks: (scale) => {
            if (xs.length <= 12) scale.ticks = xs.map((value) => ({value}));
          }}),
          y: axis({kind: "percent", title: state.losses === "efficiency" ? "scaling efficiency" : "scaling loss", ...(state.losses === "efficiency" ? {suggestedMax: 1} : {suggestedMin: 0})}),
        },
        plugins: {
          legend: {display: false},
          tooltip: {
            filter: (item, index) => index < 3,
            callbacks: {
              title: (items) => items[0]?.raw.point?.devices_text,
              label: (item) => item.dataset.label,
              afterLabel: ({raw: {point}}) => [
                `efficiency ${metric_text(point, "scaling_efficiency")}, loss ${metric_text(point, "scaling_loss")}`,
                `against ${all_points[point.series.baseline].devices_text}`,
                ...(point.position === point.series.knee ? ["the knee of the series"] : []),
              ],
            },
          },
        },
      },
    };
  }

  // ---- Table of series

  const share_text = (value) => shown(value, "percent");
  const rows = simulated_series.map((one) => {
    const scaled = analysed_of(one);
    const last = scaled[scaled.length - 1];
    const largest_cause = last && causes.map((cause) => [last.value("scaling_loss_by." + cause), cause]).sort((a, b) => b[0] - a[0])[0];
    return {
      one,
      name: one.name,
      kind: scaled.length > 1 ? one.kind : "",
      baseline: one.baseline === undefined ? null : devices_of(all_points[one.baseline]),
      most: last ? devices_of(last) : null,
      loss: last ? last.value("scaling_loss") : null,
      cause: largest_cause && largest_cause[0] > 0.0005 ? `${words_of_cause(largest_cause[1])[0]}, ${share_text(largest_cause[0])}` : "",
      knee: one.knee === undefined ? null : devices_of(all_points[one.knee]),
      amdahl: one.fit && one.kind === "strong" ? one.fit.slope : null,
      doubling: one.fit && one.kind !== "strong" ? one.fit.slope : null,
      communication: one.fit ? one.fit.communication_slope : null,
      r_squared: one.fit ? one.fit.r_squared : null,
    };
  });
  const some = (key) => rows.some((row) => row[key] !== null && row[key] !== "");

  scaling.append(losses_place);
  choice(losses_place.appendChild(element("div", {class: "controls"})), "show", [["efficiency", "efficiency"], ["loss", "loss"]], "efficiency", (value) => {
    state.losses = value;
    efficiencies.redraw();
  });
  const efficiencies = chart(losses_place, "scaling efficiency by series", 360, efficiency_chart);
  const fit_note = element("p", {class: "note", id: "fit"});
  scaling.append(fit_note);
  const table_of_series = table(scaling, [
    {key: "name", title: "series"},
    {key: "kind", title: "scaling"},
    {key: "baseline", title: "baseline", kind: "number"},
    {key: "most", title: "up to", kind: "number"},
    {key: "loss", title: "loss", kind: "percent"},
    {key: "cause", title: "most of it lost to"},
    {key: "knee", title: "knee at", kind: "number"},
    {key: "amdahl", title: "serial fraction", kind: "percent"},
    {key: "doubling", title: "per doubling", kind: "percent"},
    {key: "communication", title: "waiting", kind: "percent"},
    {key: "r_squared", title: "R²", kind: "number"},
  ].filter(({key}) => some(key)), rows, {
    name: "series", most: 10,
    on_row: (row) => choose(row.one),
    row_label: "show where this series loses",
    chosen: (row) => row.one === state.series,
  });
  scaling.append(element("p", {class: "note"},
    "Baseline, up to and knee are in devices; loss is that of the last point. Serial fraction (strong scaling): the part of the baseline's step that more devices do not shorten, after Amdahl. " +
    "Per doubling (other scaling): how much more device time a token takes with every doubling of devices. Waiting: the part of these that is waiting for communication."));

  // ---- One series

  const one_series = section("breakdown", "Where the time goes");
  const picker = element("select", {id: "series", "aria-label": "series", change: () => choose(simulated_series.find(({place}) => String(place) === picker.value))},
    ...simulated_series.map((one) => element("option", {value: one.place}, one.name)));
  const controls = element("div", {class: "controls"}, element("label", {}, "series ", picker));
  one_series.append(controls);
  choice(controls, "step in", [["seconds", "seconds"], ["share", "share"]], "seconds", (value) => {
    state.shares = value === "share";
    steps.redraw();
  });

  function labels_of(points) {
    const labels = points.map((point) => format.number(devices_of(point)));
    if (new Set(labels).size === labels.length) return labels;
    return points.map((point, i) => [labels[i], sweep_points.parameters_text(point, sweep_points.scale_paths)]);
  }
  function stacked(points, datasets, y, label) {
    return {
      type: "bar",
      data: {labels: labels_of(points), datasets},
      options: {
        onClick: open_at,
        onHover: pointer,
        interaction: {mode: "index", intersect: false},
        scales: {
          x: {stacked: true, title: {display: true, text: "devices"}, grid: {display: false}},
          y: axis({...y, stacked: true}),
        },
        plugins: {
          legend: {display: true},
          tooltip: {
            filter: ({parsed}) => parsed.y !== 0,
            callbacks: {title: (items) => points[items[0]?.dataIndex]?.devices_text, label},
          },
        },
      },
    };
  }
  const step_time = (point) => point.value("step_time_s");

  function step_chart() {
    const points = points_of(state.series);
    const value = (point, part) => point.value("breakdown_s." + part) / (state.shares ? step_time(point) : 1);
    const datasets = breakdown_parts
      .filter((part) => points.some((point) => point.value("breakdown_s." + part) > 0))
      .map((part) => {
        const [label, ink] = words_of_part(part);
        return {label, part, points, data: points.map((point) => value(point, part)), backgroundColor: ink, maxBarThickness: 70};
      });
    const label = ({dataset, dataIndex}) => {
      const seconds = points[dataIndex].value("breakdown_s." + dataset.part);
      return ` ${dataset.label}: ${format.seconds(seconds)}, ${format.percent(seconds / step_time(points[dataIndex]))}`;
    };
    return stacked(points, datasets, state.shares ? {kind: "percent", title: "share of the step", max: 1} : {kind: "seconds", title: "step time"}, label);
  }

  function cause_chart() {
    const points = analysed_of(state.series);
    const datasets = causes
      .filter((cause) => points.some((point) => Math.abs(point.value("scaling_loss_by." + cause)) > 5e-5))
      .map((cause) => {
        const [label, ink] = words_of_cause(cause);
        return {label, points, data: points.map((point) => point.value("scaling_loss_by." + cause)), backgroundColor: ink, maxBarThickness: 70};
      });
    return stacked(points, datasets, {kind: "percent", title: "scaling loss", suggestedMax: 0.01},
      ({dataset, parsed}) => ` ${dataset.label}: ${format.percent(parsed.y)}`);
  }

  function fit_text(one) {
    if (!one.fit) return "";
    const parts = [`${one.name}: `,
      one.kind === "strong" ? `Amdahl's serial fraction is ${share_text(one.fit.slope)}` : `${share_text(one.fit.slope)} more device time with every doubling`,
      `, of which waiting for communication ${share_text(one.fit.communication_slope)} (R² ${one.fit.r_squared.toFixed(2)}; dashed)`,
      one.knee === undefined ? ". It has no knee in this range." : `. Its knee is at ${format.number(devices_of(all_points[one.knee]))} devices.`];
    return parts.join("");
  }

  function choose(one) {
    state.series = one;
    picker.value = one.place;
    table_of_series.dispatchEvent(new Event("refresh"));
    fit_note.textContent = fit_text(one);
    efficiencies.redraw();
    steps.redraw();
    losses.redraw();
    cause_note.hidden = analysed_of(one).length > 1;
  }

  const parts = element("div", {class: "beside"});
  const steps_place = element("div", {}, element("h3", {}, "The step"));
  const losses_by_place = element("div", {}, element("h3", {}, "Scaling loss by cause"));
  const cause_note = element("p", {class: "note"}, "This series has only one size: there is nothing to lose against.");
  parts.append(steps_place, losses_by_place);
  one_series.append(parts);
  const steps = chart(steps_place, "step time by what it is spent on", 380, step_chart);
  const losses = chart(losses_by_place, "scaling loss by cause", 380, cause_chart);
  losses_by_place.append(cause_note);
  chosen.listeners.push(() => efficiencies.redraw());
  choose(state.series);
}
