// What a search has found, in words: keys and their values, plans, and why the best one wins.
"use strict";

const plan_words = (() => {
  const {data, format, breakdown} = trainyard;
  const {plans, neighbours, counts, candidates, capacity_bytes} = data;
  const best = plans[0];

  const objective = {
    step_time: {name: "step time", of: (point) => point.time, of_result: (result) => result.step_time_s, slower: "slower", best: "fastest"},
    cost: {name: "cost per step", of: (point) => point.cost, of_result: (result) => result.cost.per_step, slower: "dearer", best: "cheapest"},
    energy: {name: "energy per step", of: (point) => point.energy, of_result: (result) => result.cost.energy_kwh_per_step, slower: "thirstier", best: "thriftiest"},
  }[data.objective];

  const counted = (count, one, several = one + "s") => `${format.number(count)} ${count === 1 ? one : several}`;
  const money = (amount) => `${format.count(amount)} ${data.currency}`;
  const signed = (share) => (share < 0 ? "−" : "+") + format.percent(Math.abs(share));

  // "strategy.tensor" is "tensor" to people; "training.micro_batch" keeps what tells it apart only where it must.
  const short = (path) => path.slice(path.lastIndexOf(".") + 1);
  const value_text = (value) => (value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value));
  const keys_text = (keys) => Object.entries(keys).map(([path, value]) => `${short(path)} ${value_text(value)}`).join(", ");
  const change_text = ({path, from, to}) =>
    `${short(path)} ` + (from === null ? value_text(to) : `${value_text(from)} → ${value_text(to)}`);

  // Candidates as objects: {time, memory, cost, energy, front, keys}, best first.
  const points = candidates.rows.map(([time, memory, cost, energy, front, ...places]) => {
    const keys = {};
    for (let i = 0; i < places.length; i += 2) keys[candidates.paths[places[i]]] = JSON.parse(candidates.values[places[i + 1]]);
    return {time, memory, cost, energy, front: front === 1, keys};
  });

  // Keys in which a plan differs from another: "micro_batch 2 instead of 1". Those of another framework are its own.
  function differences(keys, others) {
    if (keys["strategy.framework"] !== others["strategy.framework"]) return [keys_text(keys)];
    const paths = [...new Set([...Object.keys(keys), ...Object.keys(others)])];
    const as_text = (value) => JSON.stringify(value ?? null);
    return paths.filter((path) => as_text(keys[path]) !== as_text(others[path]))
      .map((path) => (keys[path] === undefined ? `no ${short(path)}` : `${short(path)} ${value_text(keys[path])}` + (others[path] === undefined ? "" : ` instead of ${value_text(others[path])}`)));
  }

  // As block of YAML what is there as JSON: one key in a line.
  function yaml_text(name, json) {
    let keys;
    try {
      keys = JSON.parse(json);
    } catch {
      return `${name}: ${json}\n`;
    }
    return `${name}:\n` + Object.entries(keys).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}\n`).join("");
  }
  const plan_text = ({strategy, training}) => yaml_text("strategy", strategy) + yaml_text("training", training);

  // ---- Neighbours

  const relative = ({from_s, to_s}) => (from_s > 0 ? to_s / from_s - 1 : 0);
  const runnable = neighbours.filter(({refused}) => refused === "").map((neighbour) => ({...neighbour, slower: relative(neighbour)}));
  const refused = neighbours.filter(({refused}) => refused !== "");
  const fitting = runnable.filter(({fits}) => fits).sort((a, b) => a.slower - b.slower);
  const too_large = runnable.filter(({fits}) => !fits).sort((a, b) => a.slower - b.slower);

  // The causes that make most of the difference, in its direction first.
  function why(neighbour, most = 2, details = true) {
    const direction = Math.sign(neighbour.to_s - neighbour.from_s) || 1;
    const weights = neighbour.causes.filter(({seconds}) => seconds * direction > 0)
      .sort((a, b) => direction * (b.seconds - a.seconds));
    const least = 0.15 * Math.abs(weights[0]?.seconds ?? 0);
    return weights.filter(({seconds}) => Math.abs(seconds) >= least).slice(0, most)
      .map((cause) => `${breakdown[cause.category][0]} ${signed(cause.seconds / neighbour.from_s)}` + (details && cause.why !== "" ? ` (${cause.why})` : ""))
      .join("; ");
  }

  // ---- Why the best wins

  const work = ["matmul", "attention", "memory_bound", "optimizer"];

  function where_it_goes() {
    const {breakdown_s, step_time_s} = best.result;
    const share = (names) => names.reduce((sum, name) => sum + breakdown_s[name], 0) / step_time_s;
    const losses = Object.keys(breakdown_s).filter((name) => !work.includes(name) && breakdown_s[name] > 0.005 * step_time_s)
      .sort((a, b) => breakdown_s[b] - breakdown_s[a]).slice(0, 3)
      .map((name) => `${breakdown[name][0]} ${format.percent(share([name]))}`);
    return `Its devices compute ${format.percent(share(work))} of the step` +
      (losses.length > 0 ? `; the rest is mostly ${losses.join(", ")}.` : ".");
  }

  function against_the_next() {
    if (points.length < 2) return null;
    const [first, second] = points;
    const behind = objective.of(second) / objective.of(first) - 1;
    return `The next best, with ${differences(second.keys, first.keys).join(", ")}, is ` +
      (behind < 5e-5 ? "as good." : `${format.percent(behind)} ${objective.slower}.`);
  }

  function against_neighbours() {
    if (fitting.length === 0) return null;
    const better = fitting.filter(({slower}) => slower < -5e-5);
    if (better.length > 0)
      return `With one key changed it would take less time: ${change_text(better[0])} by ${format.percent(-better[0].slower)}` +
        (data.stopped ? "; the search was stopped before it came there." : `; by ${objective.name} it is worse.`);
    const equal = fitting.filter(({slower}) => slower <= 5e-5);
    const worse = fitting.filter(({slower}) => slower > 5e-5);
    const nearest = worse[0];
    return (equal.length > 0 ? `${counted(equal.length, "single change makes", "single changes make")} no difference (${equal.slice(0, 4).map(change_text).join(", ")}). ` : "") +
      (nearest === undefined ? "" : `No change of a single key is faster; the least that one costs is ${format.percent(nearest.slower)}, for ${change_text(nearest)}: ${why(nearest, 2, false)}.`);
  }

  // Of each key the change that costs least says how much depends on it.
  function dearest_keys() {
    const least = new Map();
    for (const neighbour of fitting) if (!least.has(neighbour.path)) least.set(neighbour.path, neighbour);
    const dear = [...least.values()].filter(({slower}) => slower > 0.005).sort((a, b) => b.slower - a.slower).slice(0, 3);
    if (dear.length === 0) return null;
    return "Most depends on " + dear.map((neighbour) => `${short(neighbour.path)}, where any other value costs at least ${format.percent(neighbour.slower)} (${change_text(neighbour)}: ${why(neighbour, 1, false)})`).join("; ") + ".";
  }

  function held_by_memory() {
    const faster = too_large.filter(({slower}) => slower < -5e-5);
    const peak = best.result.memory.peak_bytes;
    const fill = `It takes ${format.bytes(peak)}, ${format.percent(peak / capacity_bytes)} of the memory.`;
    if (faster.length === 0) return fill + (too_large.length > 0 ? " None of the single changes that do not fit would be faster." : "");
    return fill + " Memory holds it back: " + faster.slice(0, 3).map((neighbour) =>
      `${change_text(neighbour)} would be ${format.percent(-neighbour.slower)} faster, but needs ${format.bytes(neighbour.peak_bytes)}`).join("; ") +
      (faster.length > 3 ? `; ${faster.length - 3} more in the table below` : "") + ".";
  }

  function against_the_leanest() {
    const front = points.filter((point) => point.front);
    if (front.length < 2) return null;
    const leanest = front.reduce((one, other) => (other.memory < one.memory ? other : one));
    if (leanest === points[0]) return "Nothing that was simulated takes less memory either.";
    return `Of the plans that nothing beats in everything at once, the leanest takes ${format.bytes(leanest.memory)}, for ${format.percent(Math.abs(leanest.time / points[0].time - 1))} ${leanest.time < points[0].time ? "less" : "more"} time: ` +
      `${differences(leanest.keys, points[0].keys).join(", ")}.`;
  }

  const reasons = () => [where_it_goes(), against_the_next(), against_neighbours(), dearest_keys(), held_by_memory(), against_the_leanest()].filter((text) => text !== null && text !== "");

  // ---- What was looked at

  function extent() {
    const possible = counts.combinations - counts.refused;
    return `${counted(counts.combinations, "combination")} of ${data.frameworks.length === 1 ? data.frameworks[0] : counted(data.frameworks.length, "framework")}: ` +
      `${format.number(counts.refused)} do not run, ${format.number(possible)} do. Of these ${format.number(counts.simulated)} were simulated, ` +
      `${format.number(counts.too_large)} do not fit in memory, ${format.number(counts.slower)} are proved to be worse than the best` +
      (counts.left > 0 ? `, and ${format.number(counts.left)} were not looked at.` : ".");
  }

  return {best, points, objective, fitting, too_large, refused, counted, money, signed, short, value_text, keys_text, change_text, plan_text, why, reasons, extent};
})();
