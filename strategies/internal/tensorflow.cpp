#include "strategies/internal/tensorflow.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "strategies/checks.hpp"
#include "strategies/internal/maxtext.hpp"
#include "strategies/search_values.hpp"

namespace trainyard::strategies {
namespace {

// The same program in MaxText's terms. Without model parallelism every device has all weights. KerasHub's layouts of
// language models divide weights over both axes, the model's and the batch's (get_layout_map in keras_hub/src/models/
// */*_backbone.py): its batch axis is MaxText's fsdp.
MaxText gspmd(const TensorflowOptions& options, const Job& job) {
  MaxTextOptions same;
  if (options.mode_on(job) == TensorflowOptions::Mode::model_parallel) {
    same.tensor = options.tensor;
  } else {
    same.ici.at(index_of(MeshAxis::fsdp)) = 1;
    same.ici.at(index_of(MeshAxis::data)) = the_rest;
  }
  return MaxText(std::move(same));
}

void check_gspmd(std::vector<Problem>& problems, const TensorflowOptions& options, const Job& job) {
  const workloads::Model& model = job.model;
  if (!model.has_tokens() || model.structure == workloads::Model::Structure::encoder_decoder) {
    problems.push_back({.key = "strategy.mode",
                        .message = "programs divided by GSPMD are simulated for language models of one stack of "
                                   "layers, not for " +
                                   model.name + "; use 'mirrored' or 'multi-worker-mirrored'"});
    return;
  }
  const std::vector<Problem> more = gspmd(options, job).check(job);
  problems.insert(problems.end(), more.begin(), more.end());
}

// Copies to one device need a way to each of the others; no host has more devices behind its own links.
constexpr std::int64_t most_devices_of_a_star = 14;

}  // namespace

TensorflowOptions::Mode TensorflowOptions::mode_on(const Job& job) const {
  if (mode.value == "auto") {
    if (of_keras() && tensor > 1) return Mode::model_parallel;
    if (job.cluster.torus()) return of_keras() ? Mode::data_parallel : Mode::tpu;
    return job.cluster.nodes() == 1 ? Mode::mirrored : Mode::multi_worker_mirrored;
  }
  const auto named = std::ranges::find(mode.choices, mode.value) - mode.choices.begin();
  return static_cast<Mode>(named - 1);
}

std::vector<sim::Key> Tensorflow::keys() {
  TensorflowOptions& o = options_;
  const char* replicates = "1: every replica has the whole model";
  return {
      {"mode", &o.mode,
       "how variables are kept: on every replica of one host, of several hosts, on the host (central-storage), on "
       "parameter servers, or on every TPU; auto: tpu on TPUs, mirrored on one node, else multi-worker-mirrored"},
      {"tensor", &o.tensor, "1: every replica has the whole model; of keras: ranks of the model axis", false, 1,
       most_ranks},
      {"pipeline", &o.pipeline, replicates, false, 1, most_ranks},
      {"context", &o.context, replicates, false, 1, most_ranks},
      {"expert", &o.expert, replicates, false, 1, most_ranks},
      {"cross_device_ops", &o.cross_device_ops,
       "of mirrored: gradients meet in NCCL's all-reduce, in copies inside and between the halves of the host, or in "
       "copies to one device and back"},
      {"num_packs", &o.num_packs,
       "of mirrored: packs that the concatenated gradients are split into; 0: each gradient by itself, as it comes",
       false, 0},
      {"communication", &o.communication,
       "of multi-worker-mirrored: collectives of NCCL (auto too), or a ring of remote procedure calls over TCP"},
      {"bytes_per_pack", &o.bytes_per_pack,
       "of multi-worker-mirrored: bytes above which a pack of gradients is closed and its all-reduce starts; 0: one "
       "pack of all",
       false, 0},
      {"parameter_servers", &o.parameter_servers,
       "hosts that the variables are spread over, with one network adapter each (absent: as many as worker nodes)",
       false, 1, most_ranks},
      {"synchronous", &o.synchronous,
       "of parameter-server: the update waits for all workers' gradients (SyncReplicasOptimizer); else each worker "
       "goes "
       "on by itself"},
      {"grpc_efficiency", &o.grpc_efficiency,
       "share of an adapter's rate that remote procedure calls over TCP reach: 0.3 to 0.5 (an estimate)", false, 0.01,
       1},
  };
}

std::vector<Problem> Tensorflow::check(const Job& job) const {
  using Mode = TensorflowOptions::Mode;
  std::vector<Problem> problems;
  const auto report = [&](std::string key, std::string message) {
    problems.push_back({.key = "strategy." + std::move(key), .message = std::move(message)});
  };
  const auto only_one = [&](const std::string& key, std::int64_t value) {
    if (value != 1)
      report(
          key,
          "TensorFlow's strategies replicate the whole model; use 1, or framework 'keras' with mode 'model-parallel'");
  };
  const Mode mode = options_.mode_on(job);
  if (mode != Mode::model_parallel) only_one("tensor", options_.tensor);
  only_one("pipeline", options_.pipeline);
  only_one("context", options_.context);
  only_one("expert", options_.expert);

  if (options_.divided_by_gspmd(job)) {
    if (mode == Mode::tpu && !job.cluster.torus())
      report("mode", "'tpu' is for TPUs; use 'mirrored' or 'multi-worker-mirrored'");
    if (problems.empty()) check_gspmd(problems, options_, job);
    return problems;
  }
  if (job.cluster.torus())
    report("mode", std::string("TPUs have a strategy of their own; use '") +
                       (options_.of_keras() ? "data-parallel" : "tpu") + "', or leave the key out");
  const std::int64_t devices = job.cluster.devices();
  const std::int64_t nodes = job.cluster.nodes();
  if (nodes > 1 && (mode == Mode::mirrored || mode == Mode::central_storage))
    report("mode", "'" + options_.mode.value + "' is for the devices of one host, not of " + std::to_string(nodes) +
                       " nodes; use 'multi-worker-mirrored'");
  const std::string& operations = options_.cross_device_ops.value;
  if (mode != Mode::mirrored && operations != "nccl")
    report("cross_device_ops", "is an option of mode 'mirrored'; leave it out");
  else if (operations == "hierarchical-copy" && (devices < 4 || devices % 2 != 0))
    report("cross_device_ops", "hierarchical-copy works on two halves of an even number of 4 or more devices, not " +
                                   std::to_string(devices) + "; use 'nccl'");
  else if (operations == "reduction-to-one-device" && devices > most_devices_of_a_star + 1)
    report("cross_device_ops", "reduction-to-one-device is simulated for up to " +
                                   std::to_string(most_devices_of_a_star + 1) + " devices, not " +
                                   std::to_string(devices) + "; use 'nccl'");
  if (mode != Mode::multi_worker_mirrored && options_.bytes_per_pack > 0)
    report("bytes_per_pack", "is an option of mode 'multi-worker-mirrored'; leave it out");
  if (mode != Mode::multi_worker_mirrored && options_.communication.value != "auto")
    report("communication", "is an option of mode 'multi-worker-mirrored'; leave it out");
  if (mode != Mode::mirrored && options_.num_packs != 1)
    report("num_packs", "is an option of mode 'mirrored'; use bytes_per_pack");
  if (mode != Mode::parameter_server && (options_.parameter_servers || options_.synchronous))
    report(options_.synchronous ? "synchronous" : "parameter_servers",
           "is an option of mode 'parameter-server'; leave it out");

  const std::vector<Problem> groups = check_layer_groups(job, "tensorflow");
  problems.insert(problems.end(), groups.begin(), groups.end());
  const std::vector<Problem> batch = check_batch(job, devices, job.training.micro_batch.value_or(1));
  problems.insert(problems.end(), batch.begin(), batch.end());
  return problems;
}

std::vector<std::string> Tensorflow::warnings(const Job& job) const {
  if (options_.divided_by_gspmd(job)) {
    std::vector<std::string> warnings = gspmd(options_, job).warnings(job);
    if (job.cluster.torus() && !options_.of_keras() && job.cluster.node().accelerator == "tpu-v7x")
      warnings.emplace_back(
          "strategy.framework: TensorFlow does not run on TPU v7x; what is simulated is its schedule");
    return warnings;
  }
  std::vector<std::string> warnings;
  const std::int64_t workers = job.cluster.devices();
  if (options_.mode_on(job) == TensorflowOptions::Mode::parameter_server && !options_.synchronous && workers > 1)
    warnings.push_back(
        "strategy.synchronous: workers do not wait for each other, so a gradient is computed from "
        "variables that miss about " +
        std::to_string(workers - 1) + " updates of other workers; a step is one of every worker");
  if (job.training.backend == workloads::Backend::cuda_graph)
    warnings.emplace_back(
        "training.backend: TensorFlow records no CUDA graphs; its own are 'graph', 'eager' and 'xla'");
  if (job.training.attention && *job.training.attention != workloads::AttentionKernel::unfused)
    warnings.emplace_back("training.attention: TensorFlow has no flash attention of its own");
  return warnings;
}

PlannedStep Tensorflow::plan(const Job& job) const {
  if (!options_.divided_by_gspmd(job)) return plan_tensorflow(options_, job);
  PlannedStep step = gspmd(options_, job).plan(job);
  if (!options_.of_keras()) return step;
  // The program runs by itself while fit() is in Python.
  const sim::BlockId round_trip = step.plan.blocks.add(
      {.name = "fit", .ops = {{.work = sim::HostWork{keras_round_trip / options_.steps_per_execution}}}});
  for (sim::Program& program : step.plan.programs) program.calls.push_back({.block = round_trip});
  return step;
}

// Not asynchronous parameter servers, whose gradients are of old variables.
std::vector<SearchKey> Tensorflow::search_keys(const Job& job) const {
  const std::string mode = "strategy.mode";
  std::vector<std::string> modes{"multi-worker-mirrored", "parameter-server"};
  if (job.cluster.nodes() == 1) modes = {"mirrored", "multi-worker-mirrored", "central-storage", "parameter-server"};
  if (job.cluster.torus()) modes = {"tpu"};
  const bool divides = options_.of_keras() && job.model.has_tokens();
  if (options_.of_keras() && job.cluster.torus()) modes.clear();
  if (divides) modes.insert(modes.end(), {"data-parallel", "model-parallel"});
  if (modes.empty()) return {};
  std::vector<SearchKey> keys{{.path = mode, .values = std::move(modes)}};
  if (!job.cluster.torus())
    keys.push_back(
        {.path = "strategy.synchronous", .values = {"true"}, .only_with = mode, .only_value = "parameter-server"});
  if (divides)
    keys.push_back({.path = "strategy.tensor",
                    .values = texts(tensor_sizes(job)),
                    .only_with = mode,
                    .only_value = "model-parallel"});
  keys.insert(keys.end(), {micro_batch_key(job), recompute_key(job)});
  return keys;
}

Keras::Keras() {
  options_.mode.choices.emplace_back("data-parallel");
  options_.mode.choices.emplace_back("model-parallel");
}

std::vector<sim::Key> Keras::keys() {
  std::vector<sim::Key> keys = Tensorflow::keys();
  keys.front().help =
      "TensorFlow's strategies, or keras.distribution's: data-parallel, every device has all weights; model-parallel, "
      "weights are divided over a mesh of `tensor` ranks times the rest; auto: model-parallel with tensor above 1, "
      "data-parallel on TPUs, else mirrored on one node and multi-worker-mirrored on several";
  keys.push_back({"steps_per_execution", &options_.steps_per_execution,
                  "steps between two round trips of fit() through Python", false, 1, 1e6});
  return keys;
}

}  // namespace trainyard::strategies
