// Which part of a model lies on which stage of DeepSpeed's pipeline. Sources: deepspeedai/DeepSpeed
// deepspeed/runtime/pipe/module.py (_partition_layers), deepspeed/runtime/utils.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::strategies {

// Where each of `parts` runs of items begins, and the end of the last: as many items in each, the first ones get what
// is left over.
std::vector<std::int64_t> partition_uniform(std::int64_t items, std::int64_t parts);

// The same, for runs whose weights differ little: each run is added where it makes the largest less the smallest least.
std::vector<std::int64_t> partition_balanced(const std::vector<std::int64_t>& weights, std::int64_t parts);

// What a pipeline is cut between: an embedding, a layer, a head. Classes are those of Megatron-DeepSpeed
// (megatron/model/gpt_model.py, GPTModelPipe).
struct PipelineItem {
  std::string type;
  std::int64_t trained = 0;  // parameters, on a rank
};
std::vector<PipelineItem> pipeline_items(std::int64_t layers, bool tied_head);

// `method`: "uniform" counts items; "parameters" what is trained in them; "type:" and a regular expression those whose
// class it is found in, whatever the case. What is wrong with a method, and where it has the items cut.
std::optional<std::string> problem_of_method(const std::string& method, const std::vector<PipelineItem>& items);
std::vector<std::int64_t> partition_items(const std::string& method, const std::vector<PipelineItem>& items,
                                          std::int64_t stages);

}  // namespace trainyard::strategies
