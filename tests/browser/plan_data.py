"""A search made by hand: its data as the program writes it into a page, of which all figures are known beforehand."""

import copy
import json

GiB = 2**30
capacity = 79 * GiB
best_keys = {"strategy.framework": "megatron-lm", "strategy.tensor": 8, "strategy.sequence_parallel": True, "strategy.pipeline": 4,
             "strategy.schedule": "interleaved", "strategy.virtual_pipeline": 5, "training.micro_batch": 1,
             "training.recompute": "none", "strategy.distributed_optimizer": True}
paths = list(best_keys)


def breakdown(step, **shares):
    """Of a step whose devices work for what these causes leave."""
    parts = {name: 0.0 for name in ("matmul", "attention", "memory_bound", "optimizer", "exposed_data", "exposed_tensor", "exposed_pipeline",
                                    "exposed_context", "exposed_expert", "exposed_offload", "bubble", "host", "straggler")}
    for name, share in shares.items():
        parts[name] = share * step
    parts["matmul"] = step - sum(parts.values())
    return parts


def plan(base, step, memory, **changes):
    result = copy.deepcopy(base)
    shares = {"attention": 0.08, "memory_bound": 0.07, "exposed_data": 0.02, "exposed_tensor": 0.09, "bubble": 0.05 * step / 10}
    result.update(step_time_s=step, mfu=4.6 / step, tokens_per_s=8.4e6 / step, breakdown_s=breakdown(step, **shares), warnings=[])
    result["memory"].update(peak_bytes=memory, capacity_bytes=capacity, fits=True)
    result["cost"] = {"currency": "USD", "per_hour": 1280.0, "per_step": 0.3556 * step, "per_million_tokens": 0.042 * step, "price": "list price",
                      "market": "on_demand", "energy_kwh_per_step": 1.4 * step / 10}
    keys = {**best_keys, **changes}
    strategy = {path.split(".")[1]: value for path, value in keys.items() if path.startswith("strategy.")}
    training = {"global_batch": 1024, "sequence": 8192, **{path.split(".")[1]: value for path, value in keys.items() if path.startswith("training.")}}
    return {"keys": keys, "strategy": json.dumps(strategy), "training": json.dumps(training), "result": result}


def neighbour(path, to, step, memory, causes, refused=""):
    return {"path": path, "from": best_keys.get(path), "to": to, "refused": refused, "fits": memory <= capacity, "peak_bytes": memory,
            "step_time_s": step, "from_s": 10.0, "to_s": step,
            "causes": [{"category": category, "seconds": seconds, "why": why} for category, seconds, why in causes]}


def candidates(count):
    """The best, then worse ones, of which every fourth of the first forty needs less memory than all before it."""
    values = [json.dumps(best_keys[path]) for path in paths] + ["2", "4", "16", '"full"', '"1f1b"']
    spare = {"strategy.pipeline": values.index("16"), "training.micro_batch": values.index("2"), "training.recompute": values.index('"full"')}
    rows = []
    for i in range(count):
        front = i % 4 == 0 and i <= 40
        time = 10 * (1 + 0.004 * i) + (0 if front else 0.3 + (i * 37 % 19) * 0.11)
        memory = round((70 - i if front else 66 - (i * 7919 % 47) * 0.8) * GiB)
        row = [time, memory, 0.3556 * time, 1.4 * time / 10 * (1 + (i * 13 % 7) * 0.01 if i else 1), int(front)]
        for place, path in enumerate(paths):
            changed = path in spare and i % (place + 3) != 0 and i > 0
            row += [place, spare[path] if changed else values.index(json.dumps(best_keys[path]))]
        rows.append(row)
    rows.sort()
    return {"all": count + 500, "paths": paths, "values": values, "rows": rows}


def search(base, count=900):
    return {
        "objective": "step_time", "currency": "USD", "capacity_bytes": capacity, "frameworks": ["megatron-lm", "pytorch-fsdp"], "left_out": ["keras: no plan fits"],
        "fixed": {"strategy.overlap_grad_reduce": True},
        "counts": {"combinations": 132_480, "refused": 98_112, "simulated": count + 500, "too_large": 21_600, "slower": 11_368 - count, "left": 0,
                   "pruned": 32_968 - count, "examined": 33_468},
        "stopped": False,
        "searched": [{"path": "strategy.tensor", "values": ["1", "2", "4", "8"]}, {"path": "strategy.pipeline", "values": ["1", "2", "4", "8", "16"]},
                     {"path": "strategy.schedule", "values": ["1f1b", "interleaved", "zb-h1"]}, {"path": "training.micro_batch", "values": ["1", "2", "4"]}],
        "plans": [plan(base, 10.0, 70 * GiB), plan(base, 10.06, 71 * GiB, **{"training.micro_batch": 2}),
                  plan(base, 10.16, 66 * GiB, **{"strategy.pipeline": 8}), plan(base, 10.4, 61 * GiB, **{"strategy.virtual_pipeline": 2}),
                  plan(base, 10.9, 58 * GiB, **{"training.recompute": "selective"})],
        "candidates": candidates(count),
        "neighbours": [
            neighbour("training.micro_batch", 2, 10.06, 71 * GiB, [("bubble", 0.31, "bubble 8.1 % of the step, was 5.0 %"), ("matmul", -0.25, "larger products")]),
            neighbour("training.micro_batch", 4, 9.9, 94 * GiB, [("matmul", -0.4, "larger products"), ("bubble", 0.3, "")]),
            neighbour("strategy.pipeline", 8, 10.16, 66 * GiB, [("bubble", 0.4, "bubble 9 % of the step, was 5 %"), ("exposed_data", -0.24, "")]),
            neighbour("strategy.tensor", 4, 11.2, 76 * GiB, [("exposed_data", 1.7, "half as many ranks share a layer"), ("exposed_tensor", -0.5, "")]),
            neighbour("strategy.schedule", "1f1b", 11.5, 62 * GiB, [("bubble", 1.5, "bubble 20 % of the step, was 5 %")]),
            neighbour("training.recompute", "full", 12.8, 31 * GiB, [("matmul", 2.3, "forward passes run again"), ("attention", 0.5, "")]),
            neighbour("strategy.framework", "pytorch-fsdp", 0, 0, [], "tensor 8 with virtual_pipeline 5: the interleaved schedule needs micro-batches"),
            neighbour("strategy.context", 2, 0, 0, [], "<b>context</b> does not divide the devices"),
        ],
    }
