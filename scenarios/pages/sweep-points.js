// The points of a sweep as the other scripts use them: values by name, metrics with their units, and the lines that
// join points in a chart.
"use strict";

const sweep_points = (() => {
  const {data, format, shown} = trainyard;

  // ---- Points

  const places = new Map(data.fields.map((field, place) => [field, place]));
  const path_places = new Map(data.parameter_paths.map((path, place) => [path, place]));
  // What the names of all series have in common says nothing here.
  const names = data.series.map(({name}) => name.split(", "));
  const common = names[0].filter((part) => names.length > 1 && names.every((parts) => parts.includes(part)));
  const name_of = (parts) => parts.filter((part) => !common.includes(part)).join(", ") || parts.join(", ") || "all points";
  const series = data.series.map((one, place) => ({...one, place, name: name_of(names[place]), points: []}));
  const text_of = (lines) => lines.map((place) => data.texts[place]).join("\n");

  class Point {
    constructor(row, position) {
      Object.assign(this, {row, position, status: row.status, series: series[row.series]});
    }
    value(field) {
      return this.row.values?.[places.get(field)] ?? null;
    }
    parameter(path) {
      return this.row.parameters[path_places.get(path)] ?? null;
    }
    get ok() {
      return this.status === "ok";
    }
    get fits() {
      return this.value("memory.fits") !== false;
    }
    get scenario() {
      return text_of(this.row.scenario ?? []);
    }
    get diagnostics() {
      return text_of(this.row.diagnostics ?? []);
    }
    get warnings() {
      return (this.row.warnings ?? []).map((place) => data.texts[place]);
    }
    get communication() {
      return (this.row.communication ?? []).map(([purpose, operation, count, bytes, wire_bytes, busy_s, exposed_s]) => ({
        purpose: data.texts[purpose], operation: data.texts[operation], count, bytes, wire_bytes, busy_s, exposed_s,
      }));
    }
    get devices_text() {
      return this.ok ? `${format.number(this.value("devices"))} devices` : `point ${this.position + 1}`;
    }
    get name() {
      return `${this.series.name}, ${this.ok ? this.devices_text : parameters_text(this, scale_paths)}`;
    }
  }
  const points = data.points.map((row, position) => new Point(row, position));
  for (const point of points) point.series.points.push(point);
  for (const one of series) one.points.sort((a, b) => (a.value("devices") ?? Infinity) - (b.value("devices") ?? Infinity));
  const simulated = points.filter((point) => point.ok);

  // ---- Parameters

  const value_text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  const last_word = (path) => path.slice(path.lastIndexOf(".") + 1);
  // "deepspeed, global_batch 1024, recompute full": some say themselves of what they are.
  const plain_paths = ["name", "strategy.framework", "model"];
  function parameters_text(point, paths) {
    return paths
      .filter((path) => point.parameter(path) !== null)
      .map((path) => {
        const value = point.parameter(path);
        return plain_paths.includes(path) ? value_text(value) : `${last_word(path)} ${value_text(value)}`;
      })
      .join(", ");
  }
  const values_of = (path) => {
    const values = new Map();
    for (const point of points) {
      const value = point.parameter(path);
      if (value !== null) values.set(JSON.stringify(value), value);
    }
    return [...values.values()].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : trainyard.alphabet.compare(value_text(a), value_text(b))));
  };
  // "25 Gbit/s" is a number too, where all values have that unit.
  const quantity = /^([0-9.]+(?:e[-+]?[0-9]+)?) *([A-Za-z][A-Za-z/]*)$/;
  const unit_of = (value) => (typeof value === "number" ? "" : (String(value).match(quantity)?.[2] ?? null));
  const number_of = (value) => (typeof value === "number" ? value : value === null ? null : Number(String(value).match(quantity)[1]));
  const paths = data.parameter_paths.map((path) => {
    const values = values_of(path);
    const units = new Set(values.map(unit_of));
    const numeric = values.length > 1 && units.size === 1 && !units.has(null);
    return {path, values: numeric ? values.sort((a, b) => number_of(a) - number_of(b)) : values, numeric, unit: numeric ? [...units][0] : ""};
  });
  // Which differ between the points of one series.
  const scale_paths = paths
    .map(({path}) => path)
    .filter((path) => series.some((one) => new Set(one.points.map((point) => JSON.stringify(point.parameter(path)))).size > 1));

  // ---- Metrics

  const currency = simulated.map((point) => point.value("cost.currency")).find((name) => name !== null);
  const money = currency ? ` in ${currency}` : "";
  const known = {
    step_time_s: ["step time", "seconds"],
    tokens_per_s: ["tokens per second", "count"],
    samples_per_s: ["samples per second", "count"],
    tokens_per_s_per_device: ["tokens per second and device", "count"],
    mfu: ["MFU (model FLOP utilisation)", "percent"],
    hfu: ["HFU (hardware FLOP utilisation)", "percent"],
    scaling_efficiency: ["scaling efficiency", "percent"],
    scaling_loss: ["scaling loss", "percent"],
    "memory.peak_bytes": ["peak memory of a device", "bytes"],
    communication_overhead: ["communication overhead", "percent"],
    "cost.per_step": ["cost per step" + money, "number"],
    "cost.per_hour": ["cost per hour" + money, "number"],
    "cost.per_million_tokens": ["cost per million tokens" + money, "number"],
    "cost.energy_kwh_per_step": ["energy per step in kWh", "number"],
    "run.days": ["days of the whole run", "number"],
    "run.cost": ["cost of the whole run" + money, "number"],
    "run.energy_kwh": ["energy of the whole run in kWh", "number"],
  };
  const shares = /^(mfu|hfu|device_busy)|efficiency$|_loss$|_loss_by\.|overhead$|_share$|utilization|goodput/;
  const sizes = /_bytes$|^memory\./;
  function kind_of(field) {
    if (field === "memory.overhead" || (sizes.test(field) && field !== "memory.peak_rank")) return "bytes";
    if (shares.test(field)) return "percent";
    if (/(_s|_s\.[a-z_0-9]+)$/.test(field) && !/_per_s$/.test(field)) return "seconds";
    return /_per_s/.test(field) ? "count" : "number";
  }
  const words_of = (field) => field.replaceAll(".", ": ").replaceAll("_", " ");
  function metric_of(field) {
    const [name, kind] = known[field] ?? [words_of(field), kind_of(field)];
    return {field, name, kind, main: field in known};
  }
  const is_number = (field) => simulated.some((point) => typeof point.value(field) === "number");
  const varies = (field) => new Set(simulated.map((point) => point.value(field))).size > 1;
  const main_fields = Object.keys(known).filter((field) => is_number(field) && simulated.some((point) => point.value(field) !== 0));
  const other_fields = data.fields.filter((field) => !(field in known) && is_number(field) && varies(field));
  const metrics = [...main_fields, ...other_fields].map(metric_of);
  const throughput = simulated.some((point) => point.value("tokens_per_s") > 0) ? "tokens_per_s" : "samples_per_s";

  // ---- Lines

  // What can lie on the x axis: devices, and every parameter that is a number.
  const axes = [
    {key: "devices", name: "devices", of: (point) => point.value("devices")},
    ...paths.filter(({numeric}) => numeric).map(({path, unit}) => ({
      key: path, name: unit === "" ? path : `${path} in ${unit}`, of: (point) => number_of(point.parameter(path)),
    })),
  ];

  // Along an axis along which a series does not go, a line joins the points that differ in nothing else.
  function lines_along(axis) {
    if (axis.key === "devices" || scale_paths.includes(axis.key))
      return series
        .filter((one) => one.points.some((point) => point.ok))
        .map((one) => ({key: "s" + one.place, name: one.name, points: one.points.filter((point) => point.ok)}));
    const others = data.parameter_paths.filter((path) => path !== axis.key);
    const several = others.filter((path) => paths.find((one) => one.path === path).values.length > 1);
    const lines = new Map();
    for (const point of simulated) {
      const key = JSON.stringify(others.map((path) => point.parameter(path)));
      if (!lines.has(key)) lines.set(key, {key, name: parameters_text(point, several) || "all points", points: []});
      lines.get(key).points.push(point);
    }
    return [...lines.values()];
  }

  // Best first: by what a device does where the line has most devices, among what fits in memory.
  function ranked(lines) {
    const worth = (line) => {
      const possible = line.points.filter((point) => point.fits);
      const last = (possible.length > 0 ? possible : line.points).reduce((a, b) => (b.value("devices") > a.value("devices") ? b : a));
      const rate = last.value(throughput) / last.value("devices");
      return [possible.length > 0 ? 1 : 0, last.value("mfu") > 0 ? last.value("mfu") : rate];
    };
    const worths = new Map(lines.map((line) => [line, worth(line)]));
    return lines.slice().sort((a, b) => {
      const [[fits_a, rate_a], [fits_b, rate_b]] = [worths.get(a), worths.get(b)];
      return fits_b - fits_a || rate_b - rate_a;
    });
  }

  const parts_of = (prefix) => data.fields.filter((field) => field.startsWith(prefix)).map((field) => field.slice(prefix.length));

  return {
    points, simulated, series, paths, scale_paths, metrics, metric_of, axes, throughput, lines_along, ranked, parameters_text, value_text,
    breakdown_parts: parts_of("breakdown_s."),
    causes: parts_of("scaling_loss_by."),
    metric_text: (point, field) => shown(point.value(field), metric_of(field).kind),
  };
})();
