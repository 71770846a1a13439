// The report of `trainyard sweep`.
"use strict";

(() => {
  const {data, format, element, section, figures, table} = trainyard;
  const {points, simulated, series, paths, throughput, metric_of, value_text} = sweep_points;
  const failed = points.filter((point) => point.status === "failed");
  const missing = points.length - simulated.length - failed.length;
  const unfit = simulated.filter((point) => !point.fits);
  const details = sweep_details();

  const summary = section("summary", "Summary");
  figures(summary, [
    {name: "points", value: format.number(points.length), more: `in ${format.number(series.length)} series`},
    {name: "simulated", value: format.number(simulated.length), more: unfit.length > 0 ? `${format.number(unfit.length)} do not fit in memory` : "all fit in memory"},
    {name: "not possible", value: format.number(failed.length), more: failed.length > 0 ? "for reasons below" : ""},
    ...(missing > 0 ? [{name: "missing", value: format.number(missing), more: "run the sweep again", class: "bad"}] : []),
  ]);
  summary.append(element("p", {class: "note"}, `Results from ${data.store}, simulated by ${data.programs.length > 0 ? "Trainyard " + data.programs.join(" and ") : "nobody yet"}.`));

  if (simulated.length > 0) {
    const chosen = {lines: [], listeners: []};
    sweep_curves(section("curves", "Curves"), chosen, details.open);
    sweep_scaling(chosen, details.open);
  }

  // ---- Every point

  const result_columns = ["devices", "step_time_s", throughput, "mfu", "scaling_efficiency", "scaling_loss", "memory.peak_bytes", "communication_overhead", "cost.per_step", "cost.per_million_tokens"];
  const titles = {step_time_s: "step time", [throughput]: throughput === "tokens_per_s" ? "tokens/s" : "samples/s", mfu: "MFU", scaling_efficiency: "efficiency", scaling_loss: "loss", "memory.peak_bytes": "peak memory", communication_overhead: "overhead", "cost.per_step": "cost/step", "cost.per_million_tokens": "cost/M tokens"};
  const has = (field) => simulated.some((point) => point.value(field) !== null);
  const varied = paths.filter(({values}) => values.length > 1);
  const columns = [
    {key: "number", title: "point", kind: "number"},
    {key: "status", title: "status"},
    ...varied.map(({path, numeric, unit}) => ({key: path, title: path.slice(path.lastIndexOf(".") + 1), kind: numeric && unit === "" ? "number" : "text"})),
    ...result_columns.filter(has).map((field) => ({key: field, title: titles[field] ?? field, kind: field === "devices" ? "number" : metric_of(field).kind})),
  ];
  const status_of = (point) => (point.ok ? (point.fits ? "fits" : "does not fit") : point.status === "failed" ? "not possible" : "missing");
  const rows = points.map((point) => {
    const row = {point, number: point.position + 1, status: status_of(point)};
    for (const {path, numeric, unit} of varied) row[path] = (numeric && unit === "") || point.parameter(path) === null ? point.parameter(path) : value_text(point.parameter(path));
    for (const field of result_columns) row[field] = point.value(field);
    return row;
  });
  const every = section("points", "Every point", "A row opens the exact scenario of its point. A column takes a word, or for numbers < 10, >= 5, 3 .. 7.");
  table(every, columns, rows, {name: "points", most: 50, column_filters: true, on_row: ({point}) => details.open(point), row_label: "open the point"});

  // ---- What is not possible

  if (failed.length > 0) {
    // The first reason of each: what comes after it often follows from it.
    const reasons = new Map();
    for (const point of failed) {
      const reason = point.diagnostics.split("\n")[0].replace(/^.*?:\d+:\d+: /, "");
      if (!reasons.has(reason)) reasons.set(reason, []);
      reasons.get(reason).push(point);
    }
    const impossible = section("impossible", "Not possible");
    table(impossible, [{key: "reason", title: "why"}, {key: "count", title: "points", kind: "number"}, {key: "example", title: "for example"}],
      [...reasons].map(([reason, of]) => ({reason, count: of.length, example: of[0].name, point: of[0]})),
      {name: "not possible", sort: "count", descending: true, most: 20, on_row: ({point}) => details.open(point), row_label: "open the first of these points"});
  }

  details.follow_address();
  trainyard.page.dataset.ready = "yes";
})();
