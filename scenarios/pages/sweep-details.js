// One point of a sweep: its scenario, its result or why there is none.
"use strict";

function sweep_details() {
  const {format, shown, element, table, figures, breakdown} = trainyard;
  const {points, breakdown_parts, metric_of, metric_text, value_text} = sweep_points;
  const prefix = "#point-";

  const dialog = element("dialog", {id: "point", "aria-labelledby": "point-title"});
  document.body.append(dialog);
  let current = null;

  function copy(text, button, source) {
    const tell = (words) => {
      button.textContent = words;
      setTimeout(() => (button.textContent = "copy"), 1500);
    };
    const select = () => {  // where the page may not write to the clipboard
      getSelection().selectAllChildren(source);
      tell("selected: press Ctrl+C");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => tell("copied"), select);
    else select();
  }

  function yaml_of(point) {
    const text = point.scenario + "\n";
    const source = element("pre", {id: "scenario", tabindex: 0}, text);
    const button = element("button", {type: "button", id: "copy", click: () => copy(text, button, source)}, "copy");
    const save = element("button", {type: "button", click: () => trainyard.save(`point-${point.position + 1}.yaml`, text, "application/yaml")}, "save");
    return element("div", {}, element("h3", {}, "Scenario"),
      element("div", {class: "controls"}, button, save, element("span", {class: "note"}, "the whole of it, for trainyard run")), source);
  }

  function list(parent, title, texts, properties = {}) {
    if (texts.length === 0) return;
    parent.append(element("h3", {}, title), element("ul", properties, ...texts.map((text) => element("li", {}, text))));
  }

  function bar_of(point) {
    const total = point.value("step_time_s");
    const parts = breakdown_parts
      .map((part) => ({part, seconds: point.value("breakdown_s." + part)}))
      .filter(({seconds}) => seconds > 0)
      .sort((a, b) => b.seconds - a.seconds);
    const rows = parts.map(({part, seconds}) => {
      const [name, ink] = breakdown[part] ?? [part, "#7f7f7f"];
      const bar = element("span", {class: "bar"});
      bar.style.width = (100 * seconds) / total + "%";
      bar.style.background = ink;
      return element("tr", {}, element("td", {class: "text"}, name), element("td", {class: "number"}, format.seconds(seconds)),
        element("td", {class: "number"}, format.percent(seconds / total)), element("td", {class: "bars"}, bar));
    });
    return element("table", {class: "plain"}, element("tbody", {}, ...rows));
  }

  function memory_of(point) {
    const parts = ["parameters", "gradients", "optimizer", "activations", "buffers", "overhead"];
    const peak = point.value("memory.peak_bytes");
    const rows = parts
      .filter((part) => point.value("memory." + part) > 0)
      .map((part) => {
        const bar = element("span", {class: "bar"});
        bar.style.width = (100 * point.value("memory." + part)) / peak + "%";
        return element("tr", {}, element("td", {class: "text"}, part), element("td", {class: "number"}, format.bytes(point.value("memory." + part))),
          element("td", {class: "bars"}, bar));
      });
    return element("table", {class: "plain"}, element("tbody", {}, ...rows));
  }

  function result_of(point) {
    const parent = element("div");
    const capacity = metric_text(point, "memory.capacity_bytes");
    figures(parent, [
      {name: "step time", value: metric_text(point, "step_time_s")},
      {name: "throughput", value: metric_text(point, sweep_points.throughput), more: sweep_points.throughput === "tokens_per_s" ? "tokens per second" : "samples per second"},
      {name: "MFU", value: metric_text(point, "mfu")},
      {name: "peak memory", value: metric_text(point, "memory.peak_bytes"), more: (point.fits ? "fits in " : "does not fit in ") + capacity, class: point.fits ? "" : "bad"},
      ...(point.value("scaling_loss") === null ? [] : [{name: "scaling loss", value: metric_text(point, "scaling_loss"), more: "against " + points[point.series.baseline].devices_text}]),
      ...(point.value("cost.per_step") === null ? [] : [{name: "cost per step", value: metric_text(point, "cost.per_step"), more: point.value("cost.currency")}]),
    ]);
    list(parent, "Warnings", point.warnings, {class: "warning"});
    parent.append(element("div", {class: "beside"},
      element("div", {}, element("h3", {}, "The step"), bar_of(point)),
      element("div", {}, element("h3", {}, "Peak memory"), memory_of(point))));
    if (point.communication.length > 0) {
      parent.append(element("h3", {}, "Communication per rank and step"));
      table(parent, [
        {key: "purpose", title: "for"},
        {key: "operation", title: "operation"},
        {key: "count", title: "count", kind: "number"},
        {key: "bytes", title: "bytes", kind: "bytes"},
        {key: "wire_bytes", title: "sent", kind: "bytes"},
        {key: "busy_s", title: "busy", kind: "seconds"},
        {key: "exposed_s", title: "waited for", kind: "seconds"},
      ], point.communication.map((row) => ({...row, operation: row.operation.replaceAll("_", " ")})), {name: "communication"});
    }
    const all = element("details", {}, element("summary", {}, "every number of the result"));
    const rows = trainyard.data.fields
      .filter((field) => point.value(field) !== null)
      .map((field) => ({field, value: typeof point.value(field) === "number" ? shown(point.value(field), metric_of(field).kind) : String(point.value(field))}));
    all.addEventListener("toggle", () => {
      if (all.open && all.children.length === 1) table(all, [{key: "field", title: "field"}, {key: "value", title: "value"}], rows, {name: `point-${point.position + 1}`, most: 500});
    });
    parent.append(all);
    return parent;
  }

  function neighbour(step, text) {
    const siblings = current.series.points;
    const other = siblings[siblings.indexOf(current) + step];
    return element("button", {type: "button", disabled: !other, click: () => open(other)}, text);
  }

  function fill(point) {
    const words = {ok: "simulated", failed: "not possible", missing: "not simulated yet"};
    const parameters = trainyard.data.parameter_paths
      .filter((path) => point.parameter(path) !== null)
      .map((path) => element("tr", {}, element("td", {class: "text"}, path), element("td", {class: "text"}, value_text(point.parameter(path)))));
    const close = element("button", {type: "button", id: "close", click: () => dialog.close()}, "close");
    const content = [
      element("div", {class: "controls top"}, neighbour(-1, "‹ fewer devices"), neighbour(1, "more devices ›"), element("span", {class: "note"}, `point ${point.position + 1} of ${points.length}: ${words[point.status]}`), close),
      element("h2", {id: "point-title"}, point.name),
    ];
    dialog.replaceChildren(...content);
    if (point.ok) dialog.append(result_of(point));
    if (point.status === "failed") list(dialog, "Why it is not possible", point.diagnostics.split("\n"), {class: "warning", id: "diagnostics"});
    dialog.append(element("h3", {}, "What the sweep has set"), element("table", {class: "plain"}, element("tbody", {}, ...parameters)));
    if (point.status !== "missing") dialog.append(yaml_of(point));
  }

  function show(point) {
    current = point;
    fill(point);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  function follow_address() {
    const position = location.hash.startsWith(prefix) ? Number(location.hash.slice(prefix.length)) - 1 : -1;
    if (points[position]) show(points[position]);
    else if (dialog.open) dialog.close();
  }
  // The address names the point, so that it can be passed on, and "back" leaves it.
  function open(point) {
    location.hash = prefix + (point.position + 1);
  }
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith(prefix)) history.replaceState(null, "", location.pathname + location.search);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();  // beside it
  });
  addEventListener("hashchange", follow_address);
  return {open, follow_address};
}
