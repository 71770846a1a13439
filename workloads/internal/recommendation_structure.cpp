#include <string>
#include <vector>

#include "workloads/internal/operation_writer.hpp"
#include "workloads/internal/structures.hpp"

namespace trainyard::workloads {
namespace {

void add_perceptron(OperationWriter& block, const std::string& name, std::int64_t inputs,
                    const std::vector<std::int64_t>& widths, bool last_is_linear) {
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::string number = name + " " + std::to_string(i + 1);
    block.linear(number, inputs, {{number, widths[i]}}, true, Split::none);
    inputs = widths[i];
    if (!last_is_linear || i + 1 < widths.size())
      block.add(number + " relu", ActivationWork{.kind = Model::Activation::relu, .width = inputs});
  }
}

}  // namespace

// DLRM (Naumov et al., arXiv 1906.00091).
void describe_recommendation(const Model& model, Architecture& result) {
  OperationWriter embedding(model, "tables", 1);
  embedding.add("table lookup", TablesWork{.rows = model.tables, .width = model.hidden, .pooling = model.pooling});
  result.embedding = embedding.take();
  result.causal = false;
  OperationWriter bottom(model, "bottom perceptron", 1);
  add_perceptron(bottom, "bottom", model.dense_features, model.bottom_mlp, false);
  OperationWriter top(model, "top perceptron", 1);
  const auto vectors = static_cast<std::int64_t>(model.tables.size()) + 1;
  top.add("interaction", InteractionWork{.vectors = vectors, .width = model.hidden});
  add_perceptron(top, "top", vectors * (vectors - 1) / 2 + model.hidden, model.top_mlp, true);
  result.kinds = {bottom.take(), top.take()};
  result.layers = {0, 1};
  OperationWriter head(model, "head", 1);
  head.add("loss", LossWork{.classes = 1});
  result.head = head.take();
}

}  // namespace trainyard::workloads
